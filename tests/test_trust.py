"""Trust without files or networks: signals, the predicted DSC, conformal intervals, and what measures them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fundus_seg.trust.conformal import (
    cases_needed,
    conformal_margin,
    density_ratio,
    effective_cases,
    outside,
    weighted_margins,
)
from fundus_seg.trust.quality import fit_quality
from fundus_seg.trust.risk import Share, area_under, failures_caught, rank_correlation, risk_coverage
from fundus_seg.trust.signals import (
    Gaussians,
    Range,
    fault_count,
    light,
    mean_pairwise_dsc,
    names_of,
    soft_dice_confidence,
)


def row(*pixels):
    return np.array([pixels], bool)


class TestSignals:
    def test_disagreement_is_that_of_all_pairs(self):
        """Two pixels and one of them: 2/3; two apart: 0; so three masks have the mean (2/3 + 2/3 + 0) / 3."""
        both, left, right = row(1, 1), row(1, 0), row(0, 1)
        assert mean_pairwise_dsc([both, left]) == pytest.approx(2 / 3)
        assert mean_pairwise_dsc([both, left, right]) == pytest.approx(4 / 9)
        assert mean_pairwise_dsc([row(0, 0), row(0, 0)]) == 1
        assert mean_pairwise_dsc([row(0, 0), left]) == 0
        assert math.isnan(mean_pairwise_dsc([both]))

    def test_soft_dice_confidence(self):
        """Of p = .9, .8, .4 and .1 and a mask of the first two: 2 * 1.7 / (2.2 + 2)."""
        probability = np.array([[0.9, 0.8, 0.4, 0.1]], np.float32)
        assert soft_dice_confidence(probability, row(1, 1, 0, 0)) == pytest.approx(3.4 / 4.2)
        assert soft_dice_confidence(probability, row(0, 0, 0, 0)) == 0
        assert soft_dice_confidence(np.zeros((1, 4)), row(0, 0, 0, 0)) == 0
        assert soft_dice_confidence(np.array([[1.0, 0.0]]), row(1, 0)) == 1

    def test_faults_are_counted(self):
        disc = np.zeros((9, 12), bool)
        disc[1:8, 1:8] = True
        cup = np.zeros_like(disc)
        cup[3:6, 3:6] = True
        assert fault_count(np.stack([disc, cup])) == 0
        assert fault_count(np.stack([disc, np.zeros_like(cup)])) == 1, "no cup"
        holed, parted, leaving = disc.copy(), cup.copy(), cup.copy()
        holed[2, 2] = False
        parted[3, 6], parted[3, 7] = False, True
        leaving[4, 3:10] = True
        assert fault_count(np.stack([holed, cup])) == 1
        assert fault_count(np.stack([disc, parted])) == 1
        assert fault_count(np.stack([disc, leaving])) == 1
        assert fault_count(np.stack([holed, parted])) == 2

    def test_a_range_is_left_by_a_factor(self):
        own = Range.of([*range(100, 201), math.nan])
        assert (own.low, own.high) == (101, 199)
        assert own.beyond(150) == own.beyond(101) == own.beyond(199) == 0
        assert own.beyond(101 / 2) == pytest.approx(math.log(2))
        assert own.beyond(3 * 199) == pytest.approx(math.log(3))
        assert own.beyond(0) == own.beyond(math.nan) == math.inf

    def test_the_distance_is_that_from_the_nearest_domain(self):
        """Variances within domains are 1 and 4, and one feature never varies."""
        one = np.array([[-1.0, -2.0, 5.0], [1.0, 2.0, 5.0]])
        found = Gaussians.of({"A": one, "B": one + np.array([10, 0, 0])})
        np.testing.assert_allclose(found.variance, [1, 4, 0])
        assert found.distance(np.array([0.0, 0.0, 7.0])) == 0
        assert found.distance(np.array([10.0, 4.0, 5.0])) == pytest.approx(math.sqrt(2))
        assert math.isnan(Gaussians.of({"A": one[:1]}).distance(one[0]))

    def test_light_of_the_field_alone(self):
        image = np.zeros((40, 40, 3), np.uint8)
        assert all(map(math.isnan, light(image)))
        image[10:30, 10:30] = 128
        sharp, lightness = light(image)
        assert sharp == pytest.approx(0, abs=1e-3)
        assert lightness == pytest.approx(53.6, abs=0.1)


class TestQuality:
    def cases(self, n=60):
        rng = np.random.default_rng(0)
        table = dict(zip(names_of("disc"), rng.uniform(0, 0.3, (7, n)), strict=True))
        return table, np.repeat(["A", "B", "C"], n // 3)

    def test_known_weights_are_found_and_others_are_zero(self):
        table, domains = self.cases()
        dsc = 0.98 - 0.5 * table["disagreement_disc"] - 1.5 * table["distance"]
        found = fit_quality(table, dsc, domains)
        assert found.intercept == pytest.approx(0.02, abs=0.005)
        assert found.weights["disagreement_disc"] == pytest.approx(0.5, abs=0.01)
        assert found.weights["distance"] == pytest.approx(1.5, abs=0.01)
        assert found.weights["faults"] == pytest.approx(0, abs=0.01)
        assert found.error < 0.005
        first = {name: values[0] for name, values in table.items()}
        assert found(first) == pytest.approx(dsc[0], abs=0.01)

    def test_no_signal_raises_the_predicted_dsc(self):
        table, domains = self.cases()
        found = fit_quality(table, 0.6 + table["faults"], domains)
        assert found.weights["faults"] == 0
        assert all(weight >= 0 for weight in found.weights.values())

    def test_nothing_is_extrapolated_beyond_what_was_seen(self):
        table, domains = self.cases()
        table["sharpness"][0] = np.inf
        found = fit_quality(table, 0.9 - table["distance"], domains)
        usual = dict.fromkeys(table, 0.1)
        most = {**usual, "distance": table["distance"].max()}
        assert found({**usual, "distance": 50}) == found({**usual, "distance": np.nan}) == found(most)
        assert found.most["sharpness"] == np.sort(table["sharpness"])[-2]

    def test_domains_count_the_same(self):
        """Without signals that vary, the intercept is the mean of the domains' means."""
        signals = {"faults": np.zeros(13)}
        found = fit_quality(signals, np.repeat([0.9, 0.5], [10, 3]), np.repeat(["A", "B"], [10, 3]))
        assert found({"faults": 0}) == pytest.approx(0.7)
        assert found.error == pytest.approx(0.4)
        assert fit_quality(signals, np.full(13, 0.8), ["A"] * 13).error == pytest.approx(0)

    def test_of_too_few_cases_nothing_is_fitted(self):
        assert fit_quality({"faults": [0, 1, 2]}, [0.9, 0.8, 0.7], ["A", "A", "B"]) is None


class TestConformal:
    @pytest.mark.parametrize(("alpha", "n"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3), (0.5, 1)])
    def test_one_over_alpha_minus_one_cases_are_needed(self, alpha, n):
        assert cases_needed(alpha) == n
        assert conformal_margin(np.arange(n - 1), alpha) is None
        assert conformal_margin(np.arange(n)[::-1], alpha) == pytest.approx(math.ceil((n + 1) * (1 - alpha) - 1e-9) - 1)

    def test_the_margin_is_an_order_statistic(self):
        assert conformal_margin([5, 1, 4, 2, 3], 0.5) == 3  # ceil(6 * .5) = 3rd
        assert conformal_margin(np.arange(1, 20), 0.1) == 18

    def test_scores_are_how_far_truth_lies_outside(self):
        np.testing.assert_allclose(outside([0.4, 0.4, 0.4], [0.5, 0.5, 0.5], [0.3, 0.45, 0.8]), [0.1, 0, 0.3])

    def test_coverage_is_at_least_nominal_for_exchangeable_cases(self):
        rng = np.random.default_rng(0)
        scores = rng.exponential(size=(4000, 20))
        margins = np.array([conformal_margin(own[:-1], 0.1) for own in scores])
        covered = (scores[:, -1] <= margins).mean()
        assert covered == pytest.approx(0.9, abs=0.015)  # 18 of 20 places

    def test_equal_weights_are_no_weights(self):
        scores = np.random.default_rng(1).uniform(size=23)
        found = weighted_margins(scores, np.full(23, 0.7), [0.7, 0.7], 0.1)
        assert found.tolist() == [conformal_margin(scores, 0.1)] * 2
        assert weighted_margins(scores[:8], np.ones(8), [1], 0.1).tolist() == [math.inf]

    def test_weights_move_the_margin_to_the_cases_that_resemble(self):
        """Weights 1, 1, 8 and an own weight of 2: 60 % of 12 is reached by the last score, 10 % by the second."""
        margins = weighted_margins([0.1, 0.2, 0.9], [1, 1, 8], [2], 0.4)
        assert margins.tolist() == [0.9]
        assert weighted_margins([0.1, 0.2, 0.9], [1, 1, 8], [2], 0.9).tolist() == [0.2]
        assert weighted_margins([0.1, 0.2, 0.9], [1, 1, 8], [90], 0.4).tolist() == [math.inf]

    def test_the_density_ratio_of_shifted_cases(self):
        """Two normals of SD 1 whose means differ by 1: the ratio is exp(x - 1/2)."""
        rng = np.random.default_rng(0)
        old, new = rng.normal(0, 1, (4000, 1)), rng.normal(1, 1, (4000, 1))
        weights, own = density_ratio(old, new)
        np.testing.assert_allclose(np.log(weights), old[:, 0] - 0.5, atol=0.25)
        np.testing.assert_allclose(np.log(own), new[:, 0] - 0.5, atol=0.25)
        same, _ = density_ratio(old, old[::-1])
        np.testing.assert_allclose(same, 1, atol=0.05)
        assert effective_cases(same) == pytest.approx(4000, rel=0.01)
        assert effective_cases([1, 0, 0]) == 1


class TestMeasured:
    def test_the_band_of_a_share(self):
        """Clopper and Pearson: of 0 hits in 10 the upper end is 1 - .025^(1/10)."""
        none = Share.of(0, 10)
        assert (none.low, none.high) == (0, pytest.approx(1 - 0.025**0.1))
        assert Share.of(9, 10).value == 0.9
        assert math.isnan(Share.of(0, 0).value)

    def test_correlation_and_evidence(self):
        x = np.arange(30.0)
        found = rank_correlation(x, x**3)
        assert (found.value, found.low, found.high) == (pytest.approx(1),) * 3
        assert found.is_evidence
        noise = np.random.default_rng(5).normal(size=30)
        assert not rank_correlation(x, noise).is_evidence
        assert not rank_correlation(x, np.ones(30)).is_evidence
        assert math.isnan(rank_correlation(x, np.ones(30)).value)

    def test_eyes_of_a_patient_are_drawn_together(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=20)
        y = x + rng.normal(size=20)
        alone = rank_correlation(np.repeat(x, 4), np.repeat(y, 4))
        together = rank_correlation(np.repeat(x, 4), np.repeat(y, 4), np.repeat(np.arange(20), 4))
        assert together.high - together.low > 1.5 * (alone.high - alone.low)

    def test_risk_against_coverage(self):
        losses, trust = [0.1, 0.5, 0.3], [0.9, 0.2, 0.5]
        np.testing.assert_allclose(risk_coverage(losses, trust), [0.1, 0.2, 0.3])
        assert area_under(risk_coverage(losses, trust)) == pytest.approx(0.2)
        assert area_under(risk_coverage(losses, np.negative(losses))) == pytest.approx(0.2), "the oracle's"
        np.testing.assert_allclose(risk_coverage(losses, [1, 1, 1]), [0.3] * 3, err_msg="chance")
        np.testing.assert_allclose(risk_coverage(losses, [1, 1, 2]), [0.3, 0.3, 0.3])

    def test_failures_caught_at_a_share_of_good_cases(self):
        """Of 20 good cases one may be declined: the line lies at the second least trusted of them."""
        good = np.linspace(0.5, 0.9, 20)
        trust = np.concatenate([good, [0.1, 0.505, 0.52, 0.95]])
        failed = np.repeat([False, True], [20, 4])
        found = failures_caught(failed, trust)
        assert found.line == good[1]
        assert (found.failures.hits, found.failures.cases) == (3, 4)
        assert (found.good.hits, found.good.cases) == (1, 20)
        strict = failures_caught(failed, trust, good_declined=0)
        assert (strict.failures.hits, strict.good.hits) == (1, 0)
        assert math.isnan(failures_caught([False], [1]).line)
