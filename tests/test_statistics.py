from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fundus_seg.statistics.equivalence import Summary, equivalence
from fundus_seg.statistics.intervals import (
    bootstrap_interval,
    detectable_difference,
    holm,
    mean_sd,
    paired_power,
    paired_t_p,
    rank_biserial,
    runs_needed,
    wilcoxon_p,
)


def test_deviation_is_that_of_a_sample():
    assert mean_sd([85, 95]) == (90, pytest.approx(math.sqrt(50)))  # 5² + 5² over n - 1 = 1
    mean, sd = mean_sd([85])
    assert mean == 85
    assert math.isnan(sd)
    assert np.isnan(mean_sd([])).all()


def draw(rng, runs, cases, sd_run, sd_case, sd_rest):
    """Scores of mean 0, runs x cases: an effect of each run, of each photograph, and of neither."""
    effects = rng.normal(0, sd_run, (runs, 1)) + rng.normal(0, sd_case, (1, cases))
    return effects + rng.normal(0, sd_rest, (runs, cases))


@pytest.mark.parametrize("runs", [3, 10])
@pytest.mark.parametrize(
    "spread",
    [(1.0, 0.1, 0.1), (1.0, 8.0, 4.0), (0.5, 2.0, 6.0)],
    ids=["runs vary", "cases vary", "as a difference"],
)
def test_interval_covers_the_mean_of_new_runs_on_new_photographs(runs, spread):
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(draw(rng, runs, 60, *spread), resamples=500) for _ in range(300)]
    assert 0.90 <= np.mean([interval.low <= 0 <= interval.high for interval in intervals]) <= 0.99


def test_interval_covers_the_mean_over_unseen_domains():
    rng = np.random.default_rng(0)
    cells = ((51, 2.0), (60, 1.0), (80, 0.5), (80, 1.0))
    intervals = [
        bootstrap_interval(*(draw(rng, 3, cases, sd, 6.0, 4.0) for cases, sd in cells), resamples=300)
        for _ in range(200)
    ]
    assert 0.90 <= np.mean([interval.low <= 0 <= interval.high for interval in intervals]) <= 0.99


def test_interval_covers_less_where_few_cases_decide_the_mean():
    """3 % of 60 photographs are missed in every run and count 100: one sample in six has none of them."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        distances = np.where(rng.random(60) < 0.03, 100, 15 + draw(rng, 10, 60, 0.5, 4.0, 3.0))
        interval = bootstrap_interval(distances, resamples=500)
        covered.append(interval.low <= 0.97 * 15 + 0.03 * 100 <= interval.high)
    assert 0.80 <= np.mean(covered) <= 0.90


def test_cases_nested_in_runs_would_not_cover():
    """Why a resampled photograph is the same in every run: drawn anew in each, it would seem to be R photographs."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(100):
        scores = draw(rng, 10, 60, 1.0, 8.0, 4.0)
        picked = scores[rng.integers(0, 10, (200, 10))]
        nested = (picked * rng.multinomial(60, np.full(60, 1 / 60), (200, 10))).sum(axis=(1, 2)) / 600
        low, high = np.quantile(nested, [0.025, 0.975])
        covered.append(low <= 0 <= high)
    assert np.mean(covered) < 0.8


def test_interval_is_that_of_its_seed():
    scores = draw(np.random.default_rng(0), 5, 20, 1, 1, 1)
    assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores, seed=3)
    assert bootstrap_interval(scores, seed=3) != bootstrap_interval(scores, seed=4)


def test_two_runs_give_an_interval_over_cases_that_says_so():
    cases = np.arange(40.0)
    interval = bootstrap_interval([cases - 100, cases + 100])  # the runs differ by 200, and the interval cannot know
    assert interval.over == "cases"
    half = stats.t.ppf(0.975, 39) * cases.std(ddof=1) / math.sqrt(40)
    assert (interval.low, interval.high) == pytest.approx((cases.mean() - half, cases.mean() + half), abs=0.3)
    assert bootstrap_interval([cases] * 3).over == "runs and cases"


def test_interval_without_spread_is_a_point_and_of_one_case_undefined():
    constant = bootstrap_interval(np.full((3, 4), 7.0))
    assert (constant.low, constant.high) == (7, 7)
    assert math.isnan(bootstrap_interval([[1.0], [2.0], [3.0]]).low)


class TestPatients:
    def test_agreeing_eyes_are_one_case_and_opposite_ones_none(self):
        """Both eyes alike: as if each patient had one. Eyes that balance: any sample of patients has the same mean."""
        values = np.random.default_rng(0).normal(80, 5, 20)
        pairs = [str(number // 2) for number in range(40)]
        one_eye = bootstrap_interval([values])
        both = bootstrap_interval([np.repeat(values, 2)], patients=[pairs])
        assert (both.low, both.high) == pytest.approx((one_eye.low, one_eye.high))
        taken_apart = bootstrap_interval([np.repeat(values, 2)])
        assert both.high - both.low > 1.3 * (
            taken_apart.high - taken_apart.low
        )  # sqrt(2) but for the degrees of freedom
        balanced = bootstrap_interval([np.tile([70.0, 90.0], 20)], patients=[pairs])
        assert (balanced.low, balanced.high) == (80, 80)

    def test_two_patients_by_hand(self):
        """Three eyes of 1 and one of 5, mean 2. One of two patients is drawn: -1 or 3 from it, stretched by t / z."""
        interval = bootstrap_interval([[1.0, 5.0, 1.0, 1.0]], patients=[["a", "b", "a", "a"]])
        stretch = stats.t.ppf(0.975, 1) / stats.norm.ppf(0.975)
        assert (interval.low, interval.high) == pytest.approx((2 - stretch, 2 + 3 * stretch))
        assert math.isnan(bootstrap_interval([[1.0, 2.0, 3.0]], patients=[["a"] * 3]).low)

    def test_one_case_a_patient_gives_the_same_bits(self):
        scores = draw(np.random.default_rng(0), 4, 30, 1, 5, 2)
        names = [f"patient {number * 7 % 30}" for number in range(30)]
        assert bootstrap_interval(scores, scores[:3, :9], patients=[names, names[:9]]) == bootstrap_interval(
            scores, scores[:3, :9]
        )

    def test_coverage_where_eyes_agree(self):
        """30 patients with two eyes, whose correlation is 0.8: taken for 60 cases they cover less."""
        rng = np.random.default_rng(0)
        pairs = [str(number // 2) for number in range(60)]
        covered = []
        for _ in range(400):
            eyes = np.repeat(rng.normal(0, 2, 30), 2) + rng.normal(0, 1, 60)
            intervals = (bootstrap_interval([eyes], patients=own, resamples=500) for own in ([pairs], None))
            covered.append([interval.low <= 0 <= interval.high for interval in intervals])
        known, unknown = np.mean(covered, axis=0)
        assert 0.91 <= known <= 0.98
        assert unknown < 0.88


def test_wilcoxon_by_hand():
    # Five gains: of the 2⁵ signs only all + and all - are as extreme.
    assert wilcoxon_p([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    # W- = 1; as extreme are rank sums 0 and 1 on either side: 4 of 32.
    assert wilcoxon_p([-1, 2, 3, 4, 5]) == pytest.approx(4 / 32)
    assert wilcoxon_p([0, 0, 0]) == 1


def test_paired_t_test_by_hand():
    # Mean 2, SD 1, t = 2 · sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t² + 2).
    assert paired_t_p([1, 2, 3]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert np.isnan([paired_t_p([2]), paired_t_p([2, 2, 2])]).all()


def test_rank_biserial_by_hand():
    assert rank_biserial([-1, 2, 3, 4, 5]) == pytest.approx((14 - 1) / 15)
    assert rank_biserial([-1, 1, 0]) == 0
    assert rank_biserial([-1, -2]) == -1
    assert rank_biserial([0, 0]) == 0


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # 0.04 · 2 = 0.08, and 0.041 · 1 may not come out below it; nothing exceeds 1.
    assert holm([0.041, 0.04]) == pytest.approx([0.08, 0.08])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])


def test_power_of_a_known_design():
    """Effect 0.5 at 5 %, two-sided: 34 pairs for 80 %, as in Faul et al., Behavior Research Methods 39 (2007)."""
    assert paired_power(0.5, 1, 34) == pytest.approx(0.8078, abs=1e-4)
    assert paired_power(0.5, 1, 33) < 0.8
    assert runs_needed(2.0, 1.0) == 34
    assert paired_power(1e-9, 1, 10) == pytest.approx(0.05)
    assert paired_power(100, 1, 10) == 1


def test_power_is_that_of_simulated_runs():
    differences = np.random.default_rng(0).normal(1.0, 0.9, (20_000, 8))
    found = stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
    assert paired_power(1.0, 0.9, 8) == pytest.approx(found.mean(), abs=0.015)


@pytest.mark.parametrize("runs", [2, 3, 10, 100])
def test_detectable_difference_has_the_power_that_it_promises(runs):
    assert paired_power(detectable_difference(3.0, runs), 3.0, runs) == pytest.approx(0.8)


def test_power_is_undefined_where_nothing_is_known():
    assert math.isnan(detectable_difference(math.nan, 1))
    assert runs_needed(math.nan, 1.0) is None
    assert runs_needed(100.0, 0.1) is None
    assert runs_needed(0.0, 1.0) == 2
    assert runs_needed(0.01, 1.0) == 2


def test_equivalence_by_hand():
    # SE = sqrt(0.5² / 10 + 0.5² / 10) = 0.2236, 18 degrees of freedom; t = (1 - 0.2) / 0.2236 = 3.578.
    found = equivalence(Summary(87.2, 0.5, 10), Summary(87.0, 0.5, 10), margin=1)
    assert found.difference == pytest.approx(0.2)
    assert found.p == pytest.approx(stats.t.sf(3.5777, 18), rel=1e-3)
    assert (found.low, found.high) == pytest.approx((0.2 - 2.1009 * 0.22361, 0.2 + 2.1009 * 0.22361), abs=1e-4)
    assert found.verdict == "reproduced"


@pytest.mark.parametrize(("mean", "margin"), [(86.0, 1.0), (88.5, 2.0), (30.0, 2.0)])
def test_equivalence_is_two_one_sided_welch_tests(mean, margin):
    ours, theirs = (mean, 1.4, 5), (87.0, 0.6, 10)
    lower = stats.ttest_ind_from_stats(mean + margin, *ours[1:], *theirs, equal_var=False, alternative="greater")
    upper = stats.ttest_ind_from_stats(mean - margin, *ours[1:], *theirs, equal_var=False, alternative="less")
    found = equivalence(Summary(*ours), Summary(*theirs), margin=margin)
    assert found.p == pytest.approx(max(lower.pvalue, upper.pvalue))
    two_sided = stats.ttest_ind_from_stats(*ours, *theirs, equal_var=False).pvalue
    assert (found.low > 0 or found.high < 0) == (two_sided < 0.05)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (Summary(87.5, 0.1, 10), "reproduced"),  # the interval excludes 0, but the difference is shown to be small
        (Summary(84.0, 0.5, 10), "not reproduced"),
        (Summary(85.5, 0.3, 10), "not reproduced"),  # the whole interval, [-1.78, -1.22], lies beyond the margin
        (Summary(85.7, 0.5, 10), "undecided"),  # [-1.69, -0.91] excludes 0, but not a difference that does not matter
        (Summary(87.0, 0.1, 2), "undecided"),  # too few runs to know a spread from
        (Summary(87.0, 0.0, 10), "undecided"),
        (Summary(87.5, 3.0, 3), "undecided"),  # neither: too much spread
        (Summary(87.0, math.nan, 1), "undecided"),
    ],
)
def test_verdicts(ours, verdict):
    assert equivalence(ours, Summary(87.0, 0.3, 10), margin=1).verdict == verdict


@pytest.mark.parametrize("ours", [Summary(86.0, math.nan, 1), Summary(86.0, 0.1, 2), Summary(86.0, 0.0, 10)])
def test_without_a_known_spread_there_is_a_difference_and_no_test(ours):
    found = equivalence(ours, Summary(87.0, 0.3, 10), margin=1)
    assert (found.difference, found.tested) == (-1, False)
    assert np.isnan([found.low, found.high, found.p]).all()
