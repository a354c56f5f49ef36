"""What trust is worth where the truth is known: coverage, correlation, risk against coverage, failures caught."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
"""Of every band and interval here."""
_RESAMPLES = 1000


class Share(NamedTuple):
    """A number of cases among some, with its exact binomial band (Clopper and Pearson, Biometrika 26, 1934)."""

    hits: int
    cases: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, cases: int) -> Share:
        """The share and its band of 95 %; NaN where there is no case."""
        if not cases:
            return cls(hits, cases, math.nan, math.nan)
        band = stats.binomtest(hits, cases).proportion_ci(LEVEL, method="exact")
        return cls(hits, cases, float(band.low), float(band.high))

    @property
    def value(self) -> float:
        """The share itself; NaN where there is no case."""
        return self.hits / self.cases if self.cases else math.nan


class Correlation(NamedTuple):
    """Spearman's rank correlation with its bootstrap interval of 95 %; NaN where a side does not vary."""

    value: float
    low: float
    high: float

    @property
    def is_evidence(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def rank_correlation(
    first: ArrayLike, second: ArrayLike, patients: Sequence[object] | None = None, *, seed: int = 0
) -> Correlation:
    """Spearman's correlation of (N,) values without NaN; patients are resampled with all their cases.

    Args:
        first: the values of one side.
        second: those of the other.
        patients: whose case each is; None: each is a patient of its own.
        seed: of the resamples.
    """
    one, other = np.asarray(first, float), np.asarray(second, float)
    owners = range(len(one)) if patients is None else patients
    cases: dict[object, list[int]] = {}
    for number, owner in enumerate(owners):
        cases.setdefault(owner, []).append(number)
    groups = [np.array(own) for own in cases.values()]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES if len(groups) > 2 else 0):
        picked = np.concatenate([groups[number] for number in rng.integers(len(groups), size=len(groups))])
        drawn.append(_spearman(one[picked], other[picked]))
    known = np.array(drawn)[~np.isnan(drawn)] if drawn else np.empty(0)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(known, tails) if 2 * len(known) > len(drawn) else (math.nan, math.nan)
    return Correlation(_spearman(one, other), float(low), float(high))


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    ranks = [stats.rankdata(values) for values in (one, other)]
    if len(one) < 3 or any(np.ptp(each) == 0 for each in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def risk_coverage(losses: ArrayLike, confidence: ArrayLike) -> NDArray[np.float64]:
    """The mean loss of the k most trusted cases, for k = 1 to N (El-Yaniv and Wiener, JMLR 11, 2010).

    Cases of equal confidence come in no order: each place among them has their mean loss, which is what a random order
    has on average.

    Args:
        losses: (N,).
        confidence: (N,), larger is more trusted.
    """
    own = np.asarray(losses, float)
    _, place = np.unique(-np.asarray(confidence, float), return_inverse=True)
    means = np.bincount(place, weights=own) / np.bincount(place)
    expected = means[np.sort(place)]
    return np.asarray(np.cumsum(expected) / np.arange(1, len(own) + 1))


def area_under(curve: ArrayLike) -> float:
    """AURC, the mean of a risk-coverage curve (Geifman, Uziel, El-Yaniv, ICLR 2019); NaN without a case.

    The oracle's is that of `risk_coverage(losses, -losses)`; the mean loss is that of chance.
    """
    values = np.asarray(curve, float)
    return float(values.mean()) if values.size else math.nan


class Caught(NamedTuple):
    """Failures below a line of trust.

    Attributes:
        failures: those caught, of all failures.
        good: good cases below the same line, of all good cases.
        line: trust below which a case is declined; NaN where there is no failure or no good case.
    """

    failures: Share
    good: Share
    line: float


def failures_caught(failed: ArrayLike, confidence: ArrayLike, *, good_declined: float = 0.05) -> Caught:
    """The failures caught by the highest line below which at most a share of the good cases lies.

    The line is chosen on these very cases, so what is caught is a point of a curve, and no promise for other cases.

    Args:
        failed: (N,) bool.
        confidence: (N,).
        good_declined: the share of good cases that may be declined.
    """
    wrong, trust = np.asarray(failed, bool), np.asarray(confidence, float)
    good = np.sort(trust[~wrong])
    if not (good.size and wrong.any()):
        return Caught(Share.of(0, int(wrong.sum())), Share.of(0, good.size), math.nan)
    spared = math.floor(good_declined * good.size + 1e-9)
    line = float(good[spared])
    return Caught(
        Share.of(int((trust[wrong] < line).sum()), int(wrong.sum())),
        Share.of(int((good < line).sum()), good.size),
        line,
    )
