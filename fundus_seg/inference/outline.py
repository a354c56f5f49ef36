r"""A smooth outline of a mask: a closed curve around its centroid, of a few Fourier harmonics.

A mask that is star-shaped about its centroid c is described by its radius r(theta) there, and the radius by its Fourier
series (the centroid distance of Zhang & Lu, Review of shape representation and description techniques, Pattern
Recognition 37, 2004). It is the square of the radius that is developed here, since its coefficients need no outline:

    r^2(theta) = 1/pi * sum over |k| <= K of A_k exp(i k theta),    A_k = sum over the pixels p of exp(-i k theta_p)

where theta_p is the angle at which c sees a pixel. A_0 is the number of pixels, so the curve encloses the area of the
mask, whatever K is. Of a mask that is not star-shaped, r^2 is its area in each direction.
"""

from __future__ import annotations

import math

import numpy as np

from fundus_seg.metrics.overlap import Mask, bounding_box, check_frames

HARMONICS = 6
"""K. What readers drew of 71 eyes, every sixth of Drishti-GS and REFUGE's training set, agrees with its own smooth
outline by a Dice of at least 99.5 % for discs and 98.9 % for cups; with K = 2 by 98.5 % and 94.5 %."""


def smooth_outline(mask: Mask, harmonics: int = HARMONICS) -> Mask:
    """The pixels within the smooth outline of a (H, W) boolean mask.

    Args:
        mask: an empty one stays empty.
        harmonics: K; 0 gives a circle, 2 nearly an ellipse.

    Raises:
        ValueError: the mask is not boolean or not two-dimensional, or K is negative.
    """
    check_frames(mask, mask)
    if harmonics < 0:
        raise ValueError(f"harmonics must be 0 or more, got {harmonics}")
    smooth = np.zeros_like(mask)
    if not mask.any():
        return smooth
    rows, columns = bounding_box(mask)
    y, x = np.nonzero(mask[rows, columns])
    centre = rows.start + y.mean(), columns.start + x.mean()
    turns = _directions(rows.start + y - centre[0], columns.start + x - centre[1])
    coefficients = [complex(len(turns))]
    power = np.ones_like(turns)
    for _ in range(harmonics):
        power *= np.conj(turns)
        coefficients.append(complex(power.sum()))
    reach = math.ceil(math.sqrt((2 * sum(map(abs, coefficients)) - len(turns)) / math.pi))
    top, left = max(0, int(centre[0]) - reach), max(0, int(centre[1]) - reach)
    window = np.s_[top : int(centre[0]) + reach + 2, left : int(centre[1]) + reach + 2]
    height, width = smooth[window].shape
    down, across = np.ogrid[top : top + height, left : left + width]
    down, across = down - centre[0], across - centre[1]
    turns = _directions(*np.broadcast_arrays(down, across))
    series = np.zeros(turns.shape, complex)
    for coefficient in reversed(coefficients[1:]):  # Horner's rule
        series = (series + coefficient) * turns
    squared = (coefficients[0].real + 2 * series.real) / math.pi
    smooth[window] = down**2 + across**2 <= squared
    return smooth


def _directions(down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """exp(i theta) of offsets from the centre, 0 for none."""
    offsets = across + 1j * down
    length = np.abs(offsets)
    return np.divide(offsets, length, out=np.zeros_like(offsets), where=length > 0)
