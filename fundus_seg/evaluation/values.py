"""The values that tables and statistics use: the penalty counted, excluded cases NaN, overlap in %."""

from __future__ import annotations

import pandas as pd

from fundus_seg.evaluation.cases import DISTANCES, SCORES
from fundus_seg.evaluation.evaluate import Evaluation


def scored_values(evaluation: Evaluation) -> pd.DataFrame:
    """A row a case and structure: case, structure, the metrics, then the booleans penalised and excluded.

    A distance that is undefined because the prediction is empty counts as the protocol's `empty_distance`
    (`penalised`); a case whose truth is empty is NaN throughout (`excluded`).
    """
    cases = evaluation.cases
    values = cases[["case", "structure", *SCORES]].copy()
    excluded = cases["truth_pixels"] == 0
    penalised = ~excluded & cases["hd"].isna()
    values.loc[penalised, list(DISTANCES)] = evaluation.meta.protocol.empty_distance
    values["dsc"] *= 100
    return values.assign(penalised=penalised, excluded=excluded)
