"""How alike masks of different cases are: their mean pairwise overlap.

A network that has learned one mask by heart predicts it for every photograph. Its Dice may be high all the same, since
discs lie at much the same place of their frames. The overlap of its predictions with one another gives it away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIDE = 64
"""Side in pixels of the square onto which the masks of all frames are brought before they are compared."""


def on_common_frame(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask (..., H, W) on a frame of SIDE x SIDE: the pixel nearest to the middle of each square."""
    rows, columns = (((np.arange(SIDE) + 0.5) * side / SIDE).astype(int) for side in mask.shape[-2:])
    return mask[..., rows[:, None], columns]


def mean_pairwise_iou(masks: Sequence[NDArray[np.bool_]]) -> float:
    """Mean intersection over union of all pairs of N masks, in [0, 1]; NaN for fewer than two.

    Two empty masks are the same mask, of overlap 1.

    Args:
        masks: boolean, all of one shape.
    """
    count = len(masks)
    if count < 2:
        return math.nan
    pixels = np.stack(masks).reshape(count, -1).astype(np.float32)  # sums stay exact: far below 2²⁴
    common = (pixels @ pixels.T).astype(float)
    sizes = common.diagonal()
    union = sizes[:, None] + sizes - common
    overlap = np.divide(common, union, out=np.ones_like(common), where=union > 0)
    return float((overlap.sum() - count) / (count * (count - 1)))
