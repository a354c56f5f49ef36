"""From case records to the values that tables and statistics count: one reading of what is undefined, for both.

| | prediction empty | truth empty, or both |
|---|---|---|
| DSC, Jaccard, NSD | 0 | excluded |
| HD, HD95, HD95-max, ASD, ASSD | the protocol's `empty_distance`, penalised | excluded |
| cup-to-disc ratios | undefined if the disc is empty, 0 if only the cup is | excluded |
"""

from __future__ import annotations

import pandas as pd

from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_case import DISTANCES, OVERLAPS, SCORES

RATIOS = {"vcdr": "rows", "hcdr": "columns", "acdr": "pixels"}
"""Vertical, horizontal and area cup-to-disc ratio, and the size of disc and cup that each is made of."""


def scored_values(evaluation: Evaluation) -> pd.DataFrame:
    """A row a case and structure: case, structure, SCORES (overlaps in %, distances in 800-pixel units), two flags.

    `penalised` marks a case whose distances are the protocol's penalty; `excluded` one without truth, whose scores are
    all NaN, so that pandas' means leave it out.
    """
    cases = evaluation.cases
    values = cases[["case", "structure", *SCORES]].copy()
    excluded = cases["truth_pixels"] == 0
    penalised = ~excluded & cases["hd"].isna()
    values[list(OVERLAPS)] *= 100
    values.loc[penalised, list(DISTANCES)] = evaluation.meta.protocol.empty_distance
    return values.assign(penalised=penalised, excluded=excluded)


def cup_to_disc_ratios(evaluation: Evaluation) -> pd.DataFrame:
    """A row a case: case, then of each of RATIOS `vcdr` of the prediction, `vcdr_truth`, `vcdr_error`, two flags.

    Errors are absolute. `undefined` marks a case without a predicted disc, whose predicted ratios and errors are NaN;
    `excluded` one whose true disc or cup is empty, with NaN for the truth and the errors. Definitions are those of
    `fundus_seg.metrics.clinical`.
    """
    disc, cup = (
        evaluation.cases[evaluation.cases["structure"] == structure].set_index("case") for structure in ("disc", "cup")
    )
    excluded = (disc["truth_pixels"] == 0) | (cup["truth_pixels"] == 0)
    ratios: dict[str, pd.Series] = {}
    for name, size in RATIOS.items():
        # A division by zero is the NaN of an undefined ratio, where pandas would give infinity.
        predicted, true = (
            cup[f"{side}_{size}"] / disc[f"{side}_{size}"].where(disc[f"{side}_{size}"] > 0)
            for side in ("prediction", "truth")
        )
        true = true.mask(excluded)
        ratios |= {name: predicted, f"{name}_truth": true, f"{name}_error": (predicted - true).abs()}
    flags = {"undefined": disc["prediction_pixels"] == 0, "excluded": excluded}
    return pd.DataFrame({**ratios, **flags}).rename_axis("case").reset_index()
