"""From case records to the values that tables and statistics count: one reading of what is undefined, for both.

| | prediction empty | truth empty, or both |
|---|---|---|
| DSC, Jaccard, NSD | 0 | excluded |
| HD, HD95, HD95-max, ASD, ASSD | the protocol's `empty_distance`, penalised | excluded |
| cup-to-disc ratios | undefined if the disc is empty, 0 if only the cup is | excluded |
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fundus_seg.evaluation.metric_table import METRICS, distances, overlaps
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_case import READER_FIELDS
from fundus_seg.metrics.clinical import RATIOS, cup_to_disc_ratio


def scored_values(evaluation: Evaluation, *, by_reader: bool = False) -> pd.DataFrame:
    """One row per case and structure: case, patient, structure, METRICS (overlaps in %, distances in px of 800), flags.

    `penalised` marks a case whose distances are the protocol's penalty; `excluded` one without truth, whose scores are
    all NaN, so that pandas' means leave it out; `not_annotated` one that is excluded since nobody has annotated the
    structure. A metric that the records lack, since they are older than it, is NaN, and a patient who is not known is
    None or NaN.

    Of scores by reader, a row is the mean over readers, or over pairs of them, who have annotated the structure; with
    `by_reader` it is one reader's, named by a further column `reader`. Its case is penalised if any of them is.
    """
    cases = evaluation.cases
    excluded = ~(cases["truth_pixels"] > 0)
    penalised = ~excluded & cases["hd"].isna()
    values = cases.reindex(columns=list(METRICS)).to_numpy(np.float64, copy=True)
    values[:, np.isin(list(METRICS), overlaps())] *= 100
    there = np.isin(list(METRICS), [name for name in distances() if name in cases])
    values[np.ix_(penalised.to_numpy(bool), there)] = evaluation.meta.protocol.empty_distance
    scores = dict(zip(METRICS, values.T, strict=True))
    columns = {"case": cases["case"], "patient": cases.get("patient"), "structure": cases["structure"], **scores}
    flags = {"penalised": penalised, "excluded": excluded, "not_annotated": cases["truth_pixels"].isna()}
    keys = ["case", "patient", "structure"]
    return _over_readers(pd.DataFrame({**columns, **flags}), cases, keys, by_reader=by_reader)


def _over_readers(values: pd.DataFrame, cases: pd.DataFrame, keys: list[str], *, by_reader: bool) -> pd.DataFrame:
    """The values of each of `keys`, or of each reader there: means, and flags as `scored_values` says.

    Args:
        values: a row for each of the case records, or for each of their cases, with the same index.
        cases: the case records.
        keys: columns of the values.
        by_reader: whether readers stay apart.
    """
    if "reader" not in cases:
        return values
    of_all = ["excluded", "not_annotated"]
    keys = [*keys, "reader"] if by_reader else keys
    flags = [name for name in values if pd.api.types.is_bool_dtype(values[name])]
    grouped = values.assign(reader=cases["reader"]).groupby(keys, sort=False, dropna=False)
    numbers = [name for name in values if name not in (*keys, *flags, "reader")]
    rules = {name: "all" if name in of_all else "any" for name in flags}
    rows = grouped[numbers].mean().join(grouped[flags].agg(rules)).reset_index()
    return rows.astype({name: values[name].dtype for name in keys if name in values})


def cup_to_disc_ratios(evaluation: Evaluation, *, by_reader: bool = False) -> pd.DataFrame:
    """One row per case: case, then for each of RATIOS `vcdr` of the prediction, `vcdr_truth`, `vcdr_error`; two flags.

    Errors are absolute. `undefined` marks a case without a predicted disc, whose predicted ratios and errors are NaN;
    `excluded` one whose true disc or cup is empty, with NaN for the truth and the errors; `not_annotated` one that is
    excluded since nobody has annotated them. Of scores by reader, rows are as in `scored_values`.
    """
    cases = evaluation.cases
    keys = [name for name in ("case", *READER_FIELDS) if name in cases]
    disc, cup = (cases[cases["structure"] == structure].set_index(keys) for structure in ("disc", "cup"))
    excluded = ~((disc["truth_pixels"] > 0) & (cup["truth_pixels"] > 0))
    ratios: dict[str, object] = {}
    for name, size in RATIOS.items():
        predicted, true = (
            cup_to_disc_ratio(cup[f"{side}_{size}"], disc[f"{side}_{size}"]) for side in ("prediction", "truth")
        )
        true = np.where(excluded, np.nan, true)
        ratios |= {name: predicted, f"{name}_truth": true, f"{name}_error": np.abs(predicted - true)}
    untold = disc["truth_pixels"].isna() | cup["truth_pixels"].isna()
    flags = {"undefined": disc["prediction_pixels"] == 0, "excluded": excluded, "not_annotated": untold}
    rows = pd.DataFrame({**ratios, **flags}, index=disc.index).rename_axis(keys).reset_index()
    rows = rows.drop(columns="other", errors="ignore")
    return _over_readers(rows, rows, ["case"], by_reader=by_reader)
