"""The best operator of a table's row, and those that a test does not find to differ from it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fundus_seg.statistics.comparison import by_holdout, paired_scores
from fundus_seg.statistics.intervals import ALPHA, MINIMAL_RUNS, wilcoxon_p
from fundus_seg.statistics.patients import CASE, patients_interval, with_patients

BOLD = (
    "bold: best of the row, and those not significantly different from it (5 %, pairwise, unadjusted); never a cell "
    "of which more than half are empty predictions"
)
"""What bold means, for a table's notes; the tests that were used are named behind it."""
OVER_RUNS = "tested by the 95 % interval of the difference, bootstrapped over runs paired by seed and over cases"
OVER_CASES = (
    f"with fewer than {MINIMAL_RUNS} paired runs tested by a Wilcoxon signed-rank test paired by case (values averaged "
    "over runs), of these networks; says nothing about other seeds"
)


@dataclass(frozen=True)
class Best:
    """The best of a row.

    Attributes:
        columns: the best column and those not significantly different from it; empty for a single column.
        tests: those of OVER_RUNS and OVER_CASES that were used.
    """

    columns: frozenset[str] = frozenset()
    tests: frozenset[str] = frozenset()


def best_columns(cases: pd.DataFrame, metric: str, *, higher_is_better: bool) -> Best:
    """The column with the best mean, and every other one whose values do not differ significantly from it.

    With MINIMAL_RUNS runs of common seeds, a column is tied if the bootstrap interval of the paired difference holds
    0. With fewer, the spread of runs is not known, and Wilcoxon's test compares these very networks. All cells weigh
    the same in the mean; a column with a missing cell has no mean and takes no part. Nor does one with a cell that more
    than half consists of empty predictions: penalties and zeros are no measurement that could be the best.

    Args:
        cases: one row per run, case and structure that the table's row is of: `column` (a label), holdout, seed,
            structure, case, the metric and, where empty predictions count as something, `penalised`.
        metric: a column of `cases`.
        higher_is_better: whether the best column has the largest mean.
    """
    here = cases.dropna(subset=metric)
    cells = here.groupby(["structure", "holdout", "column"])
    means = cells[metric].mean().unstack().dropna(axis="columns").mean()
    if len(means) < 2:
        return Best()
    if "penalised" in here:
        mostly = cells["penalised"].mean().gt(0.5).groupby("column").any()
        means = means[[not mostly[column] for column in means.index]]
        if means.empty:
            return Best()
    best = str(means.idxmax() if higher_is_better else means.idxmin())
    others = {column: _tied(here, column, best, metric) for column in map(str, means.index) if column != best}
    ties = {column for column, (tied, _) in others.items() if tied}
    return Best(frozenset({best, *ties}), frozenset(test for _, test in others.values()))


def _tied(cases: pd.DataFrame, column: str, best: str, metric: str) -> tuple[bool, str]:
    """Whether the two do not differ significantly, and the test that was used."""
    both = with_patients(cases[cases["column"].isin([column, best])])
    blocks, _ = paired_scores(both, column, best, metric)
    whole = len(blocks) == both.groupby(["structure", "holdout"]).ngroups
    if whole and min(len(one) for one, _ in blocks.values()) >= MINIMAL_RUNS:
        interval = patients_interval(*(one - other for one, other in by_holdout(blocks)))
        return not (interval.low > 0 or interval.high < 0), OVER_RUNS
    by_case = both.groupby(["holdout", *CASE, "column"])[metric].mean().unstack()
    differences = (by_case[column] - by_case[best]).dropna()
    return wilcoxon_p(differences.groupby(["holdout", "patient"], sort=False).mean()) >= ALPHA, OVER_CASES
