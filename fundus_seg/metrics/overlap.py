"""Overlap of two boolean masks: Dice and Jaccard.

P is the predicted set of pixels, T the true one, |.| counts pixels. An empty truth leaves nothing to find, so
every score is NaN there, for the tables to exclude and count; a missed structure (P empty, T not) scores 0.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def check_masks(first: Mask, second: Mask) -> None:
    """Raise ValueError unless both masks are boolean and of one shape.

    Grey values are refused rather than cast: in the usual coding of this task 255 is background.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks differ in shape: {first.shape} and {second.shape}")
    for mask in (first, second):
        if mask.dtype != np.bool_:
            raise ValueError(f"masks must be boolean NumPy arrays, got {mask.dtype}: compare with a value first")


def check_frames(first: Mask, second: Mask) -> None:
    """Raise ValueError unless both masks are boolean, of one shape, and that is (H, W)."""
    check_masks(first, second)
    if first.ndim != 2:
        raise ValueError(f"masks must be (H, W), got shape {first.shape}")


def bounding_box(mask: Mask) -> tuple[slice, slice]:
    """The rows and the columns of the smallest box around a (H, W) mask; empty slices for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(top, top + height), slice(left, left + width)


def dice(pred: Mask, target: Mask, *, smooth: float = 0.0) -> float:
    """Dice similarity coefficient, `(2 |P ∩ T| + s) / (|P| + |T| + s)`, in [0, 1].

    Args:
        pred: Predicted mask, boolean, any shape.
        target: True mask, boolean, same shape.
        smooth: s >= 0. 0 is the exact coefficient, NaN if the truth is empty. 1 is the score of the released TVConv
            code, which is defined for every pair: `1 / (1 + |P|)` on an empty truth, 1 if both are empty, and not 0
            for a missed structure.

    Raises:
        ValueError: The masks differ in shape or are not boolean.
    """
    check_masks(pred, target)
    true_pixels = np.count_nonzero(target)
    if smooth == 0 and true_pixels == 0:
        return math.nan
    common = np.count_nonzero(pred & target)
    return (2 * common + smooth) / (np.count_nonzero(pred) + true_pixels + smooth)


def jaccard(pred: Mask, target: Mask) -> float:
    """Jaccard index, `|P ∩ T| / |P ∪ T|`, in [0, 1]; NaN if the truth is empty.

    Args:
        pred: Predicted mask, boolean, any shape.
        target: True mask, boolean, same shape.

    Raises:
        ValueError: The masks differ in shape or are not boolean.
    """
    check_masks(pred, target)
    if not target.any():
        return math.nan
    return np.count_nonzero(pred & target) / np.count_nonzero(pred | target)
