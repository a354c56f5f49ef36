"""Which operators of a table's row are as good as its best, as far as a test can tell."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from fundus_seg.evaluation.metric import METRICS
from fundus_seg.evaluation.statistics import wilcoxon_p

Ties = Callable[[pd.DataFrame, str, str | None, str | None], set[str]]
"""From case values (`tables.case_values`), a metric, a structure and a holdout (None for all of them) to the columns
that are the best or not told from it; none where a single column stands."""

LEVEL = 0.05
"""Of the test; not adjusted for the number of rows."""

WILCOXON = (
    "bold: the best of a row, and what a Wilcoxon signed-rank test paired by case (values averaged over runs) does not "
    "tell from it at the 5 % level, each pair on its own"
)
"""What bold means, for a table's notes."""


def ties_by_wilcoxon(cases: pd.DataFrame, metric: str, structure: str | None, holdout: str | None) -> set[str]:
    """The column with the best mean, and every other one whose case values do not differ significantly from its.

    Values are averaged over runs, and over the structures of a case where both are asked for; cells weigh the same in
    the mean. A column with a missing cell has no mean and takes no part.
    """
    here = cases.dropna(subset=metric)
    for name, value in (("structure", structure), ("holdout", holdout)):
        here = here if value is None else here[here[name] == value]
    means = here.groupby(["structure", "holdout", "column"])[metric].mean().unstack().dropna(axis="columns").mean()
    if len(means) < 2:
        return set()
    best = means.idxmax() if METRICS[metric].higher_is_better else means.idxmin()
    by_case = here.groupby(["holdout", "case", "column"])[metric].mean().unstack()
    return {column for column in means.index if wilcoxon_p((by_case[column] - by_case[best]).dropna()) >= LEVEL}
