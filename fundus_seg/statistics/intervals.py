"""Statistics of scores, on plain arrays: intervals, paired tests, power.

Scores of one cell of a table are a matrix, runs x cases: the same photographs are scored in every run, so runs and
cases are crossed, not nested. Two operators give two such matrices, paired by seed and by photograph, and the matrix
of their differences is all that a comparison needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

ALPHA = 0.05
"""Two-sided level of every interval and test, but for intervals that are corrected for several comparisons."""
POWER = 0.8
MINIMAL_RUNS = 3
"""Fewer say nothing about the spread of runs."""

_MOST_RUNS = 10_000
_EFFECTS = (1e-3, 100.0)
"""Within which a difference in standard deviations is sought: 10000 runs find 0.03, two find 12."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a mean, of 95 % unless it is corrected for several comparisons.

    Attributes:
        low, high: its ends; NaN where there are fewer than two cases.
        over: what was resampled, cases with all others of their patient. `cases` is an interval for these very networks
            on other photographs, and says nothing about other seeds.
    """

    low: float
    high: float
    over: Literal["runs and cases", "cases"]

    def within(self, least: float, most: float) -> Interval:
        """The part of the interval that lies in the possible range of the mean.

        A bootstrap interval of few runs is stretched by t / z and may leave the range. The true mean cannot, so the
        part covers it exactly as often as the whole does.
        """
        low, high = np.clip([self.low, self.high], least, most)
        return Interval(float(low), float(high), self.over)


def mean_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and standard deviation with n - 1, as in the paper's Table 1; NaN where there is none.

    Args:
        values: (R,) one value per run.
    """
    runs = np.asarray(values, dtype=float)
    mean = float(runs.mean()) if len(runs) else math.nan
    return mean, float(runs.std(ddof=1)) if len(runs) > 1 else math.nan


def bootstrap_interval(
    *matrices: ArrayLike,
    patients: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = ALPHA,
) -> Interval:
    """95 % interval of the mean of matrices' means, by a hierarchical bootstrap over runs and cases.

    Args:
        matrices: each (R, C), runs x cases without NaN, independent of one another: one for each unseen domain.
        patients: for each matrix the patient of each case, (C,); None: each case is a patient of its own.
        seed: of the resamples.
        resamples: how many.
        level: probability that the interval misses the mean, two-sided: 0.05 of one of 95 %.

    Runs are resampled, then cases, and a resampled case is the same photograph in all runs: drawing cases anew
    within each run, as if they were nested in it, shrinks their share of the variance R-fold (a "95 %" interval then
    covers 52 to 81 % where cases vary more than runs). As in Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1
    (2007); here of the effects of runs and of cases, which counts what is left between them twice, not three times.
    n - 1 of n are drawn (Rao and Wu, JASA 83, 1988), so the variance is not too small by (n - 1) / n, and the
    percentiles are stretched by t / z (Hesterberg, The American Statistician 69, 2015), t with the degrees of freedom
    of Satterthwaite: both matter for a few runs and vanish for many.

    Patients are drawn with all their eyes (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8; Field and Welsh, JRSS B 69, 2007). Each case still has the same weight, so that the
    mean of a sample is the ratio of the patients' sums and their numbers of cases. Eyes of a patient are alike, and an
    interval that took them for independent would be too narrow.

    Coverage is known for what `tests/test_statistics.py` simulates. Of 3 to 10 runs with normal effects: 92 to 98 %
    where runs or cases have an effect, more where neither has (plain percentiles of 3 runs: 73 %). Less where a few
    cases decide the mean: some 85 % of 10 runs where 3 % of 60 cases have a penalty of 100 for a distance in every
    run, since many a sample has none of them. Of 30 patients with two eyes each, whose scores correlate by 0.8: 95 %,
    and 86 % where the eyes are taken for independent.

    With fewer than MINIMAL_RUNS runs in any matrix only cases are resampled, of means over runs, and `over` says so.
    """
    scores = [np.atleast_2d(np.asarray(matrix, dtype=float)) for matrix in matrices]
    owners = [range(matrix.shape[1]) for matrix in scores] if patients is None else patients
    few = min(len(matrix) for matrix in scores) < MINIMAL_RUNS
    over: Literal["runs and cases", "cases"] = "cases" if few else "runs and cases"
    effects = [
        effect
        for matrix, own in zip(scores, owners, strict=True)
        for effect in _effects(matrix, own, with_runs=not few)
    ]
    mean = float(np.mean([matrix.mean() for matrix in scores]))
    if any(len(effect.sums) < 2 for effect in effects):
        return Interval(math.nan, math.nan, over)
    rng = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for effect in effects:
        n = len(effect.sums)
        drawn += effect.mean(rng.integers(n, size=(resamples, n - 1)))
    low, high = np.quantile(drawn / len(scores), [level / 2, 1 - level / 2]) * _stretch(effects, level)
    return Interval(mean + float(low), mean + float(high), over)


class _Effect(NamedTuple):
    """What is resampled, n runs or n patients: the sum of each one's deviations from the matrix's mean, and how many.

    `sums` and `sizes` are (n,). The sizes of runs, and of patients with one case, are 1.
    """

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def mean(self, picked: NDArray[np.int64]) -> NDArray[np.float64]:
        """The mean deviation, (S,), of each of S samples, (S, n - 1)."""
        sizes = self.sizes[picked].sum(axis=1) if (self.sizes > 1).any() else picked.shape[1]
        means: NDArray[np.float64] = self.sums[picked].sum(axis=1) / sizes
        return means

    @property
    def variance(self) -> float:
        """That of the mean deviation over all: of the sums about a ratio of 0, by the mean size."""
        return float((self.sums / self.sizes.mean()).var(ddof=1) / len(self.sums))


def _effects(matrix: NDArray[np.float64], patients: Sequence[object], *, with_runs: bool) -> Iterator[_Effect]:
    """Of each run's mean, then of each patient's cases in the order of their first."""
    if with_runs:
        yield _Effect(matrix.mean(axis=1) - matrix.mean(), np.ones(len(matrix)))
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    of_case = [numbers[patient] for patient in patients]
    deviations = matrix.mean(axis=0) - matrix.mean()
    sums, sizes = np.bincount(of_case, weights=deviations), np.bincount(of_case)
    yield _Effect(sums.astype(np.float64), sizes.astype(np.float64))


def _stretch(effects: Sequence[_Effect], level: float) -> float:
    """The ratio t / z, t with Satterthwaite's degrees of freedom of a sum of independent means."""
    freedom = np.array([len(effect.sums) - 1 for effect in effects])
    variances = np.array([effect.variance for effect in effects])
    if not variances.any():
        return 1.0
    variances /= variances.sum()
    return float(stats.t.ppf(1 - level / 2, 1 / (variances**2 / freedom).sum()) / stats.norm.ppf(1 - level / 2))


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, zeros left out; 1 where all are zero.

    Args:
        differences: (C,) of each case, the mean over paired seeds.
    """
    values = np.asarray(differences, dtype=float)
    return float(stats.wilcoxon(values).pvalue) if values.any() else 1.0


def paired_t_p(differences: ArrayLike) -> float:
    """Two-sided p of the paired t-test over runs; NaN for fewer than 2, or where they do not vary.

    Args:
        differences: (R,) of each pair of runs, the mean over cases.
    """
    values = np.asarray(differences, dtype=float)
    return float(stats.ttest_1samp(values, 0).pvalue) if len(values) > 1 and np.ptp(values) > 0 else math.nan


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation, the effect size that belongs to Wilcoxon's test.

    r = (W+ - W-) / (W+ + W-), W± the sums of the ranks of |d| of positive and of negative differences d, zeros left
    out: 1 where every case gains, -1 where every case loses (Kerby, Comprehensive Psychology 3, 2014).

    Args:
        differences: (C,) of each case, the mean over paired seeds.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    ranks = stats.rankdata(np.abs(values))
    return float((np.sign(values) * ranks).sum() / ranks.sum()) if len(values) else 0.0


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for their number: Holm, Scand. J. Statist. 6 (1979).

    The i-th smallest of m (i from 0) is multiplied by m - i; none becomes smaller than one before it, or exceeds 1.

    Args:
        p_values: (m,) of one family.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def paired_power(difference: float, sd: float, runs: int) -> float:
    """Power of the two-sided paired t-test over runs: t² has a noncentral F distribution with 1 and R - 1 degrees.

    Args:
        difference: true mean of the runs' differences, not 0.
        sd: standard deviation of the runs' differences, above 0.
        runs: R, the number of paired runs, 2 or more.
    """
    critical = stats.t.ppf(1 - ALPHA / 2, runs - 1)
    noncentrality = runs * (difference / sd) ** 2
    # Not by the noncentral t, whose far tail is NaN in SciPy 1.17; and for a noncentrality of 10000 the power is 1.
    return float(stats.ncf.sf(critical**2, 1, runs - 1, min(noncentrality, 1e4)))


def detectable_difference(sd: float, runs: int) -> float:
    """The smallest true difference that a paired t-test over the runs finds with a power of 80 %.

    Args:
        sd: standard deviation of the runs' differences; the result has its unit.
        runs: number of paired runs. NaN for fewer than 2.
    """
    if runs < 2:
        return math.nan
    return sd * float(optimize.brentq(lambda effect: paired_power(effect, 1.0, runs) - POWER, *_EFFECTS))


def runs_needed(sd: float, difference: float) -> int | None:
    """The paired runs with which a t-test finds a true difference with a power of 80 %; None for more than 10000.

    Args:
        sd: standard deviation of the runs' differences, estimated from 2 runs or more.
        difference: in the same unit, above 0.
    """
    if sd == 0:
        return 2
    few, many = 1, _MOST_RUNS  # power grows with the runs: halve the gap between too few and enough
    if math.isnan(sd) or paired_power(difference, sd, many) < POWER:
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if paired_power(difference, sd, middle) >= POWER else (middle, many)
    return many
