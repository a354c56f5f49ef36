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
from fundus_seg.metrics.clinical import RATIOS, cup_to_disc_ratio


def scored_values(evaluation: Evaluation) -> pd.DataFrame:
    """One row per case and structure: case, patient, structure, METRICS (overlaps in %, distances in px of 800), flags.

    `penalised` marks a case whose distances are the protocol's penalty; `excluded` one without truth, whose scores are
    all NaN, so that pandas' means leave it out. A metric that the records lack, since they are older than it, is NaN,
    and a patient who is not known is None or NaN.
    """
    cases = evaluation.cases
    excluded = cases["truth_pixels"] == 0
    penalised = ~excluded & cases["hd"].isna()
    values = cases.reindex(columns=list(METRICS)).to_numpy(np.float64, copy=True)
    values[:, np.isin(list(METRICS), overlaps())] *= 100
    there = np.isin(list(METRICS), [name for name in distances() if name in cases])
    values[np.ix_(penalised.to_numpy(bool), there)] = evaluation.meta.protocol.empty_distance
    scores = dict(zip(METRICS, values.T, strict=True))
    columns = {"case": cases["case"], "patient": cases.get("patient"), "structure": cases["structure"], **scores}
    return pd.DataFrame({**columns, "penalised": penalised, "excluded": excluded})


def cup_to_disc_ratios(evaluation: Evaluation) -> pd.DataFrame:
    """One row per case: case, then for each of RATIOS `vcdr` of the prediction, `vcdr_truth`, `vcdr_error`; two flags.

    Errors are absolute. `undefined` marks a case without a predicted disc, whose predicted ratios and errors are NaN;
    `excluded` one whose true disc or cup is empty, with NaN for the truth and the errors.
    """
    disc, cup = (
        evaluation.cases[evaluation.cases["structure"] == structure].set_index("case") for structure in ("disc", "cup")
    )
    excluded = (disc["truth_pixels"] == 0) | (cup["truth_pixels"] == 0)
    ratios: dict[str, object] = {}
    for name, size in RATIOS.items():
        predicted, true = (
            cup_to_disc_ratio(cup[f"{side}_{size}"], disc[f"{side}_{size}"]) for side in ("prediction", "truth")
        )
        true = np.where(excluded, np.nan, true)
        ratios |= {name: predicted, f"{name}_truth": true, f"{name}_error": np.abs(predicted - true)}
    flags = {"undefined": disc["prediction_pixels"] == 0, "excluded": excluded}
    return pd.DataFrame({**ratios, **flags}, index=disc.index).rename_axis("case").reset_index()
