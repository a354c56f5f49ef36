"""Intervals that hold for new cases of the same kind: split conformal prediction, plain and weighted.

Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005; Lei et al., JASA 113 (2018). Each prediction
comes with a guessed interval, and its score is how far the truth lies outside it (Romano et al., NeurIPS 2019). If the
new case is exchangeable with n calibration cases, the guess that is widened on both sides by the k-th smallest score,
k = ⌈(n + 1)(1 - α)⌉, holds the truth with probability 1 - α or more. That needs k <= n, so n >= 1/α - 1.

Cases of another camera are not exchangeable with those of the training domains. Where they differ in what is known of a
photograph without truth alone, weights mend it (Tibshirani et al., NeurIPS 2019); the ratio of densities that these
weights are must be estimated.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

_ROUNDING = 1e-9
_RIDGE = 1.0


def outside(low: ArrayLike, high: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """How far values lie outside intervals, (N,); 0 within."""
    low, high, true = (np.asarray(each, float) for each in (low, high, true))
    return np.maximum(np.maximum(low - true, true - high), 0)


def cases_needed(alpha: float) -> int:
    """The fewest calibration cases for an interval that misses with probability alpha at most: 1/α - 1, rounded up."""
    return math.ceil(1 / alpha - 1 - _ROUNDING)


def conformal_margin(scores: ArrayLike, alpha: float) -> float | None:
    """The ⌈(n + 1)(1 - α)⌉-th smallest of n scores; None where n < 1/α - 1, and no margin holds.

    Args:
        scores: (n,).
        alpha: probability that the interval misses, at most.
    """
    ordered = np.sort(np.asarray(scores, float))
    if len(ordered) < cases_needed(alpha):
        return None
    place = math.ceil((len(ordered) + 1) * (1 - alpha) - _ROUNDING)
    return float(ordered[place - 1])


def weighted_margins(scores: ArrayLike, weights: ArrayLike, own: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """The margin (m,) of each of m new cases by weighted scores; infinite where all scores together weigh too little.

    It is the smallest score at which the weights of the scores up to it reach 1 - α of all weights, the new case's own
    weight counted as that of an infinite score. With equal weights it is `conformal_margin`.

    Args:
        scores: (n,) of the calibration cases.
        weights: (n,) ratio of the density of new cases to that of calibration cases, at each calibration case.
        own: (m,) the same ratio at each new case.
        alpha: probability that the interval misses, at most.
    """
    values, each = np.asarray(scores, float), np.asarray(weights, float)
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(each[order])
    total = (sums[-1] if len(sums) else 0.0) + np.asarray(own, float)
    places = np.searchsorted(sums, (1 - alpha) * total * (1 - _ROUNDING))
    return np.append(values[order], math.inf)[places]


def density_ratio(calibration: ArrayLike, new: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The estimated ratio of the densities of new and calibration cases, at the (n,) calibration and (m,) new cases.

    A logistic regression tells the two kinds apart; its odds, times n / m, are the ratio (Tibshirani et al., 2019).

    Args:
        calibration: (n, K) what is known of each case without truth; what is not finite counts as the largest value.
        new: (m, K) the same.
    """
    old, later = np.asarray(calibration, float), np.asarray(new, float)
    table = np.vstack([old, later])
    finite = np.isfinite(table)
    table = np.where(finite, table, np.where(finite, table, 0.0).max(axis=0))
    spread = table.std(axis=0)
    table = (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    kinds = np.repeat([0.0, 1.0], [len(old), len(later)])
    rows = np.column_stack([np.ones(len(table)), table])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits, penalty = rows @ weights, _RIDGE * np.append(0.0, weights[1:])
        value = (np.logaddexp(0, logits) - kinds * logits).sum() + 0.5 * penalty @ weights
        return float(value), rows.T @ (special.expit(logits) - kinds) + penalty

    found = optimize.minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x
    ratio = np.exp(rows @ found) * len(old) / len(later)
    return ratio[: len(old)], ratio[len(old) :]


def effective_cases(weights: ArrayLike) -> float:
    """Kish's effective number of weighted cases, (Σ w)² / Σ w²."""
    values = np.asarray(weights, float)
    return float(values.sum() ** 2 / np.square(values).sum()) if values.any() else 0.0
