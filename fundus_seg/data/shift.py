"""Translate photographs and masks by whole pixels, so that crops are less well aligned and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_SHIFT = 0.5
"""The largest share of the side by which a picture can be shifted: beyond it the reflection repeats itself."""


def shifted(
    array: NDArray[np.uint8], direction: ArrayLike, shift: float, *, axes: Sequence[int] = (0, 1)
) -> NDArray[np.uint8]:
    """A square picture, moved along two axes and reflected at the border.

    Args:
        array: (S, S) along `axes`, such as a photograph (S, S, 3).
        direction: (2,) between -1 and 1, downwards and to the right.
        shift: the largest translation, as a share of the side; at most `MOST_SHIFT`.
        axes: the axes of rows and of columns, counted from the first.
    """
    side = array.shape[axes[0]]
    moves = np.rint(np.asarray(direction) * shift * side).astype(int)
    pad = int(np.abs(moves).max())
    widths = [(pad, pad) if axis in axes else (0, 0) for axis in range(array.ndim)]
    window = [slice(None)] * array.ndim
    for axis, move in zip(axes, moves, strict=True):
        window[axis] = slice(pad - move, pad - move + side)
    return np.pad(array, widths, mode="reflect")[tuple(window)]
