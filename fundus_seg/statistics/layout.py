"""How much features vary within an image, and how much at one position across images: whether position pays.

The TVConv paper (CVPR 2022, Fig. 1(e)) calls data layout-specific where the variance within an image is large beside
that at one position across images. With the features F[n, c, p] of N images, C channels and P positions:

    cross = 1 / (C P) sum_c sum_p 1 / (N - 1) sum_n (F[n, c, p] - mean_n F[n, c, p])^2
    intra = 1 / (N C) sum_n sum_c 1 / P sum_p (F[n, c, p] - mean_p F[n, c, p])^2

Images are a sample, so cross divides by N - 1; the positions are all that an image has, so intra divides by P. The
ratio cross / intra is 0 where all images are the same, and 1 or more where a position says nothing about its feature.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class LayoutVariance:
    """The two variances of features that come in batches, whose images are not kept.

    Batches are merged by their means and sums of squares (Chan, Golub and LeVeque, The American Statistician 37, 1983),
    so that no digits are lost where the mean is large beside the deviations.

    Attributes:
        images: N, how many images there were.
        shape: (C, h, w) of their features; empty before the first batch.
    """

    def __init__(self) -> None:
        self.images = 0
        self.shape: tuple[int, ...] = ()
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._squares = 0.0
        self._within = 0.0

    def add(self, features: NDArray[np.floating]) -> None:
        """Add the features (B, C, h, w) of some images, of one shape in all calls."""
        own = np.asarray(features, np.float64)
        count, mean = len(own), own.mean(axis=0)
        if not self.images:
            self.shape, self._mean = own.shape[1:], np.zeros_like(mean)
        together = self.images + count
        apart = mean - self._mean
        self._squares += float(np.square(own - mean).sum())
        self._squares += float(np.square(apart).sum()) * self.images * count / together
        self._mean += apart * count / together
        self._within += float(own.var(axis=(2, 3)).mean(axis=1).sum())
        self.images = together

    @property
    def cross(self) -> float:
        """The variance at a position across images; NaN for fewer than two images."""
        return self._squares / (self.images - 1) / math.prod(self.shape) if self.images > 1 else math.nan

    @property
    def intra(self) -> float:
        """The variance within an image; NaN without any image."""
        return self._within / self.images if self.images else math.nan
