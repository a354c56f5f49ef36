"""Signals of a prediction's quality that need no true mask. Each is 0 where nothing is wrong, and larger is worse.

- `disagreement_disc`, `disagreement_cup`: 1 - mean pairwise DSC of several predictions of the same photograph: those of
  an ensemble's members, or of one network and its mirror image. Roy et al., Bayesian QuickNAT, NeuroImage 195 (2019),
  predict the quality of a segmentation from such samples.
- `unsure_disc`, `unsure_cup`: 1 - the soft Dice confidence of Borges et al., arXiv 2402.10665 (2024): the margin of the
  probabilities, as the Dice of the mask with its own probabilities.
- `faults`: log(1 + number of anatomical faults) before post-processing, which would hide them.
- `framing`, `sharpness`, `exposure`: how far the disc's share of the crop, the photograph's sharpness and its mean
  lightness lie outside the range of the training photographs, as the logarithm of a factor.
- `distance`: of the encoder's features from those of the nearest training domain. With a covariance that the domains
  share it is the Mahalanobis distance of Lee et al., NeurIPS 2018; here that covariance is diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fundus_seg.metrics.anatomy import component_count, hole_count, pixels_outside
from fundus_seg.metrics.overlap import Mask
from fundus_seg.metrics.photograph import field_of_view, lab, sharpness

SHARED = ("faults", "framing", "sharpness", "exposure", "distance")
"""Signals of both structures."""
OWN = ("disagreement", "unsure")
"""Signals that each structure has of its own, as `disagreement_disc`."""
_TAIL = 0.01
"""Share of the training photographs below a range, and above it, as for `data.framing.Framing`."""
_LEAST_VARIANCE = 1e-12


def names_of(structure: str) -> tuple[str, ...]:
    """The names of the signals that say something about a structure."""
    return (*(f"{name}_{structure}" for name in OWN), *SHARED)


@dataclass(frozen=True)
class Signals:
    """Signals of one photograph.

    Attributes:
        values: by name.
        empty: whether the mask of disc and cup is empty.
        ratios: the vertical cup-to-disc ratio of each single prediction; NaN where it has no disc.
    """

    values: Mapping[str, float]
    empty: tuple[bool, bool]
    ratios: tuple[float, ...]

    def ratios_with(self, vertical_cdr: float) -> list[float]:
        """The ratio of the prediction itself, and those of the single predictions that have one."""
        return [vertical_cdr, *(ratio for ratio in self.ratios if not math.isnan(ratio))]


@dataclass(frozen=True)
class Range:
    """Where 98 % of the training photographs lie."""

    low: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> Range:
        """The range of values, of which NaN are left out; (NaN, NaN) if there is none."""
        known = np.asarray(values, float)
        known = known[np.isfinite(known)]
        low, high = np.quantile(known, [_TAIL, 1 - _TAIL]) if known.size else (math.nan, math.nan)
        return cls(float(low), float(high))

    def beyond(self, value: float) -> float:
        """log(low / value) below the range, log(value / high) above it, 0 in it; infinite for NaN, and 0 below it."""
        if self.low <= value <= self.high:
            return 0.0
        if not value > 0:
            return math.inf
        return math.log(self.low / value) if value < self.low else math.log(value / self.high)


@dataclass(frozen=True)
class Gaussians:
    """One normal distribution of features for each training domain, with a variance that they share.

    Attributes:
        means: (D, C), of each of D domains.
        variance: (C,), within domains, each domain counted once.
    """

    means: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def of(cls, features: Mapping[str, NDArray[np.floating]]) -> Gaussians:
        """The distributions of features (N, C) by domain; N may differ."""
        means = np.stack([own.mean(axis=0) for own in features.values()])
        variance = np.mean([own.var(axis=0) for own in features.values()], axis=0)
        return cls(np.asarray(means, float), np.asarray(variance, float))

    def distance(self, features: NDArray[np.floating]) -> float:
        """Root mean squared deviation of (C,) features from the nearest domain, in standard deviations.

        Features that do not vary in training are left out; NaN if none varies.
        """
        varying = self.variance > _LEAST_VARIANCE
        if not varying.any():
            return math.nan
        squares = (features[varying] - self.means[:, varying]) ** 2 / self.variance[varying]
        return float(np.sqrt(squares.mean(axis=1).min()))


def mean_pairwise_dsc(masks: Sequence[Mask]) -> float:
    """Mean Dice of all pairs of masks of one photograph, in [0, 1]; NaN for fewer than two.

    Two empty masks agree, with a Dice of 1.

    Args:
        masks: boolean, all of one shape.
    """
    scores = []
    for one, other in combinations(masks, 2):
        pixels = np.count_nonzero(one) + np.count_nonzero(other)
        scores.append(2 * np.count_nonzero(one & other) / pixels if pixels else 1.0)
    return float(np.mean(scores)) if scores else math.nan


def soft_dice_confidence(probability: NDArray[np.floating], mask: Mask) -> float:
    """2 Σ p m / (Σ p + Σ m) over the pixels of a mask m and its probabilities p, in [0, 1]; 0 for an empty mask.

    Args:
        probability: (H, W).
        mask: (H, W) bool.
    """
    total = float(probability.sum(dtype=np.float64)) + np.count_nonzero(mask)
    return 2 * float(probability[mask].sum(dtype=np.float64)) / total if total else 0.0


def fault_count(masks: NDArray[np.bool_]) -> int:
    """Anatomical faults of masks (2, H, W) of disc and cup before post-processing.

    They are components beyond the first, holes, a missing structure, and a cup that leaves the disc; each counts 1.
    """
    disc, cup = masks
    parts = sum(abs(component_count(mask) - 1) + hole_count(mask) for mask in (disc, cup))
    return parts + (pixels_outside(cup, disc) > 0)


def light(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Sharpness and mean lightness L* of a photograph (H, W, 3) in its field of view; NaN where there is none.

    Sharpness depends on the size: compare photographs of one size alone.
    """
    lightness = np.ascontiguousarray(lab(image)[..., 0])
    field = field_of_view(image)
    return sharpness(lightness, field), float(lightness[field].mean()) if field.any() else math.nan
