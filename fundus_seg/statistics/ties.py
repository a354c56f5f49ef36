"""Which operators of a table's row are as good as its best, as far as a test can tell."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fundus_seg.statistics.comparison import by_holdout, paired_scores
from fundus_seg.statistics.intervals import ALPHA, MINIMAL_RUNS, bootstrap_interval, wilcoxon_p

BOLD = "bold: the best of a row, and what is not told from it at the 5 % level, each pair on its own"
"""What bold means, for a table's notes; those of the tests that were used follow."""
OVER_RUNS = "told by the 95 % interval of the difference, bootstrapped over runs paired by seed and over cases"
OVER_CASES = (
    f"with fewer than {MINIMAL_RUNS} paired runs told by a Wilcoxon signed-rank test paired by case (values averaged "
    "over runs), of these networks; says nothing about other seeds"
)


@dataclass(frozen=True)
class Best:
    """The best of a row.

    Attributes:
        columns: the best one and those not told from it; none where a single column stands.
        tests: OVER_RUNS, OVER_CASES, as they were used.
    """

    columns: frozenset[str] = frozenset()
    tests: frozenset[str] = frozenset()


def best_columns(
    cases: pd.DataFrame, metric: str, structure: str | None, holdout: str | None, *, higher_is_better: bool
) -> Best:
    """The column with the best mean, and every other one whose values do not differ significantly from its.

    With MINIMAL_RUNS runs of common seeds, a column is tied if the bootstrap interval of the paired difference holds
    0. With fewer, the spread of runs is not known, and Wilcoxon's test tells these very networks apart. Cells weigh the
    same in the mean; a column with a missing cell has no mean and takes no part.

    Args:
        cases: as `fundus_seg.reporting.tables.case_values` gives them.
        metric: a column of `cases`.
        structure: of the row; None for all of them.
        holdout: the same.
        higher_is_better: whether the best column has the largest mean.
    """
    here = cases.dropna(subset=metric)
    for name, value in (("structure", structure), ("holdout", holdout)):
        here = here if value is None else here[here[name] == value]
    means = here.groupby(["structure", "holdout", "column"])[metric].mean().unstack().dropna(axis="columns").mean()
    if len(means) < 2:
        return Best()
    best = str(means.idxmax() if higher_is_better else means.idxmin())
    told = {column: _tied(here, column, best, metric) for column in map(str, means.index) if column != best}
    return Best(
        frozenset({best} | {column for column, (tied, _) in told.items() if tied}),
        frozenset(test for _, test in told.values()),
    )


def _tied(cases: pd.DataFrame, column: str, best: str, metric: str) -> tuple[bool, str]:
    """Whether the two are not told apart, and by which test."""
    both = cases[cases["column"].isin([column, best])]
    blocks, _ = paired_scores(both, column, best, metric)
    whole = len(blocks) == both.groupby(["structure", "holdout"]).ngroups
    if whole and min(len(one) for one, _ in blocks.values()) >= MINIMAL_RUNS:
        interval = bootstrap_interval(*(one - other for one, other in by_holdout(blocks)))
        return not (interval.low > 0 or interval.high < 0), OVER_RUNS
    by_case = both.groupby(["holdout", "case", "column"])[metric].mean().unstack()
    return wilcoxon_p((by_case[column] - by_case[best]).dropna()) >= ALPHA, OVER_CASES
