"""Calibration of probabilities: how often what is called 80 % likely is so, and the temperature that mends it.

All functions take pixels of one structure, in arrays of any shape whose first axis is that of the cases. Every pixel
counts once. Sums are in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

BINS = 15
"""Bins of equal width in which probabilities are compared with frequencies, as in Guo et al. (2017)."""
LIMITS = (1 / 20, 20.0)
"""Within which a temperature is sought."""

Floats = NDArray[np.floating]
Truth = NDArray[np.bool_ | np.uint8]


@dataclass(frozen=True)
class Reliability:
    """What probabilities were given, and what came true, in bins of equal width from 0 to 1.

    A bin is that of the probability of the structure itself, not of the more likely of structure and background.

    Attributes:
        counts: (B,) pixels in each bin.
        probability: (B,) their mean probability; NaN in an empty bin.
        frequency: (B,) the share of them that belongs to the structure; NaN in an empty bin.
    """

    counts: NDArray[np.int64]
    probability: NDArray[np.float64]
    frequency: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of |frequency - probability|, each bin weighted by its pixels."""
        gaps = np.abs(self.frequency - self.probability)
        return float(np.nansum(self.counts * gaps) / self.counts.sum())


@dataclass(frozen=True)
class Measured:
    """How well the probabilities of one structure are calibrated on some cases, by one temperature.

    Attributes:
        temperature: divisor of the logits; 1 for the network as it is.
        reliability: probabilities and frequencies.
        brier: the Brier score.
        nll: negative log-likelihood of a pixel, in nats.
    """

    temperature: float
    reliability: Reliability
    brier: float
    nll: float


def probabilities(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """The sigmoid of logits that are divided by a temperature."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, np.float64) / temperature))


def reliability(logits: Floats, truth: Truth, *, temperature: float = 1.0, bins: int = BINS) -> Reliability:
    """The reliability of sigmoid(logits / temperature).

    Args:
        logits: (N, ...).
        truth: of the same shape, 1 where a pixel belongs to the structure.
        temperature: divisor of the logits.
        bins: number of bins; a probability on an edge belongs to the bin above it, 1 to the last.
    """
    counts, sums, hits = np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins)
    for case, true in zip(logits, truth, strict=True):
        found = probabilities(case, temperature).ravel()
        place = np.minimum((found * bins).astype(np.int64), bins - 1)
        counts += np.bincount(place, minlength=bins)
        sums += np.bincount(place, found, minlength=bins)
        hits += np.bincount(place, np.ravel(true), minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    return Reliability(counts, sums / filled, hits / filled)


def brier_score(logits: Floats, truth: Truth, *, temperature: float = 1.0) -> float:
    """The mean of (probability - truth)^2 over all pixels (Brier, 1950); arguments as in `reliability`."""
    sums = [np.square(probabilities(case, temperature) - true).sum() for case, true in zip(logits, truth, strict=True)]
    return math.fsum(sums) / np.size(truth)


def negative_log_likelihood(logits: Floats, truth: Truth, *, temperature: float = 1.0) -> float:
    """The mean of -log(probability of what is true) over all pixels, in nats; arguments as in `reliability`."""
    sums = []
    for case, true in zip(logits, truth, strict=True):
        scaled = np.asarray(case, np.float64) / temperature
        sums.append((np.logaddexp(0.0, scaled) - scaled * true).sum())
    return math.fsum(sums) / np.size(truth)


def measure(logits: Floats, truth: Truth, temperature: float = 1.0) -> Measured:
    """All measures of sigmoid(logits / temperature); arguments as in `reliability`."""
    return Measured(
        temperature,
        reliability(logits, truth, temperature=temperature),
        brier_score(logits, truth, temperature=temperature),
        negative_log_likelihood(logits, truth, temperature=temperature),
    )


def fit_temperature(logits: Floats, truth: Truth) -> float:
    """The temperature with the least negative log-likelihood, sought within LIMITS (Guo et al., 2017).

    doi.org/10.48550/arXiv.1706.04599. The likelihood has one minimum in 1 / temperature. It may lie at a limit: at the
    lower one where no pixel is on the wrong side, at the upper one where the logits say nothing.

    Args:
        logits: (N, ...).
        truth: of the same shape, 1 where a pixel belongs to the structure.
    """
    found = optimize.minimize_scalar(
        lambda log: negative_log_likelihood(logits, truth, temperature=math.exp(log)),
        bounds=tuple(map(math.log, LIMITS)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return math.exp(found.x)
