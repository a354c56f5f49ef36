"""A predicted DSC: the loss 1 - DSC as a sum of signals with weights that are never negative.

A signal can only lower the predicted DSC, whatever few cases seem to say, and one that says nothing has the weight 0.
The ridge is chosen by leaving out one domain after another, since what matters is a domain that was not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties that are tried, on squared weights of signals with standard deviation 1."""


@dataclass(frozen=True)
class Quality:
    """Predicts the DSC of one structure.

    Attributes:
        intercept: the loss where every signal is 0.
        weights: by the name of the signal, the loss for each unit of it.
        most: by the name of the signal, the largest value that was seen; a larger one counts as this one.
        ridge: the penalty that was chosen.
        error: mean absolute error of the predicted DSC, each domain predicted by a fit without it.
    """

    intercept: float
    weights: Mapping[str, float]
    most: Mapping[str, float]
    ridge: float
    error: float

    def __call__(self, signals: Mapping[str, float]) -> float:
        """The predicted DSC in [0, 1]; a signal that is NaN or infinite counts as the largest that was seen."""
        loss = self.intercept
        for name, weight in self.weights.items():
            value = signals[name]
            loss += weight * (min(value, self.most[name]) if np.isfinite(value) else self.most[name])
        return float(np.clip(1 - loss, 0, 1))


def fit_quality(
    signals: Mapping[str, ArrayLike], dsc: ArrayLike, domains: Sequence[str], original: ArrayLike | None = None
) -> Quality | None:
    """Fit the predicted DSC; each domain counts the same, however many cases it has.

    Args:
        signals: by name (N,) values; what is not finite counts as the largest finite value.
        dsc: (N,), without NaN.
        domains: of each case; of a single one, halves of its cases stand in for domains.
        original: (N,) bool, the cases of which the error is that of the predicted DSC; None: all of them.

    Returns:
        None for fewer than four original cases, of which nothing can be fitted.
    """
    losses = 1 - np.asarray(dsc, float)
    shown = np.ones(len(losses), bool) if original is None else np.asarray(original, bool)
    if np.count_nonzero(shown) < 4:
        return None
    table = np.column_stack([np.asarray(values, float) for values in signals.values()])
    finite = np.where(np.isfinite(table), table, -np.inf).max(axis=0)
    most = np.where(np.isfinite(finite), finite, 0.0)
    table = np.where(np.isfinite(table), table, most)
    groups = np.unique(domains, return_inverse=True)[1]
    if not groups.any():
        groups = np.arange(len(losses)) % 2
    errors = [_left_out_error(table, losses, groups, shown, ridge) for ridge in RIDGES]
    best = int(np.argmin(errors))
    intercept, weights = _solve(table, losses, groups, RIDGES[best])
    names = list(signals)
    return Quality(
        intercept,
        dict(zip(names, map(float, weights), strict=True)),
        dict(zip(names, map(float, most), strict=True)),
        RIDGES[best],
        errors[best],
    )


def _solve(
    table: NDArray[np.float64], losses: NDArray[np.float64], groups: NDArray[np.intp], ridge: float
) -> tuple[float, NDArray[np.float64]]:
    """Intercept and weights (K,) of signals (N, K): least squares without negative weights (Lawson, Hanson, 1974)."""
    each = 1 / np.bincount(groups)[groups]
    each = each / each.sum()
    middle, mean = each @ table, float(each @ losses)
    spread = np.sqrt(each @ (table - middle) ** 2)
    scale = np.where(spread > 0, spread, math.inf)
    rows = np.sqrt(each)[:, None] * (table - middle) / scale
    penalty = np.sqrt(ridge) * np.eye(table.shape[1])
    targets = np.append(np.sqrt(each) * (losses - mean), np.zeros(len(penalty)))
    weights = optimize.nnls(np.vstack([rows, penalty]), targets)[0] / scale
    return mean - float(weights @ middle), weights


def _left_out_error(
    table: NDArray[np.float64],
    losses: NDArray[np.float64],
    groups: NDArray[np.intp],
    shown: NDArray[np.bool_],
    ridge: float,
) -> float:
    """Mean over groups of the mean absolute error in each, by a fit of the others."""
    errors = []
    for group in np.unique(groups[shown]):
        rest, own = groups != group, (groups == group) & shown
        intercept, weights = _solve(table[rest], losses[rest], np.unique(groups[rest], return_inverse=True)[1], ridge)
        predicted = np.clip(intercept + table[own] @ weights, 0, 1)
        errors.append(np.abs(predicted - losses[own]).mean())
    return float(np.mean(errors))


def overall(predicted: Iterable[float]) -> float:
    """The predicted DSC of a photograph: the mean over its structures, of those that have one; NaN where none has.

    This one number orders photographs by trust, and is what `--decline-below` compares.
    """
    known = [value for value in predicted if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
