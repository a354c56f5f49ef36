"""Cup-to-disc ratios, as an ophthalmologist reads them off a disc photograph.

Extents are upright, along the rows and columns of the photograph, first and last pixel both counted. Numerator and
denominator are of one frame and one axis, so the spacing cancels and a ratio has no unit. The challenges of this task
score the absolute error of the vertical one (REFUGE: Orlando et al., Medical Image Analysis 59, 2020).

Every ratio is NaN if the disc is empty, 0 if only the cup is, and above 1 if the cup is the larger, which is for the
caller to notice.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fundus_seg.metrics.overlap import Mask, bounding_box, check_frames

RATIOS = {"vcdr": "rows", "hcdr": "columns", "acdr": "pixels"}
"""Vertical, horizontal and area cup-to-disc ratio: the size of cup and disc that each is the quotient of."""


def extents(mask: Mask) -> tuple[int, int]:
    """Rows and columns from the first to the last that holds a pixel of the (H, W) mask; (0, 0) if it is empty."""
    rows, columns = bounding_box(mask)
    return rows.stop - rows.start, columns.stop - columns.start


def mask_sizes(mask: Mask) -> dict[str, int]:
    """The sizes of an (H, W) mask that ratios are made of: its `pixels`, and its `rows` and `columns` as `extents`."""
    rows, columns = extents(mask)
    return {"pixels": int(np.count_nonzero(mask)), "rows": rows, "columns": columns}


def cup_to_disc_ratio(cup: ArrayLike, disc: ArrayLike) -> NDArray[np.float64]:
    """Sizes of cups divided by those of their discs, element by element.

    Args:
        cup: sizes, of any shape.
        disc: sizes of the same shape.

    Returns:
        Ratios of that shape; NaN where the disc is empty.
    """
    discs = np.asarray(disc, float)
    return np.divide(np.asarray(cup, float), discs, out=np.full(discs.shape, math.nan), where=discs > 0)


def vertical_cup_to_disc_ratio(disc: Mask, cup: Mask) -> float:
    """vCDR: the height of the cup divided by the height of the disc.

    Args:
        disc: (H, W) mask of the whole disc, cup included, boolean.
        cup: (H, W) mask of the cup, boolean.

    Raises:
        ValueError: The masks differ in shape, are not boolean or not two-dimensional.
    """
    return _ratio(disc, cup, "vcdr")


def horizontal_cup_to_disc_ratio(disc: Mask, cup: Mask) -> float:
    """hCDR: the width of the cup divided by the width of the disc; masks and errors as for the vertical ratio."""
    return _ratio(disc, cup, "hcdr")


def area_cup_to_disc_ratio(disc: Mask, cup: Mask) -> float:
    """aCDR: the pixels of the cup divided by those of the disc; masks and errors as for the vertical ratio."""
    return _ratio(disc, cup, "acdr")


def _ratio(disc: Mask, cup: Mask, name: str) -> float:
    check_frames(disc, cup)
    size = RATIOS[name]
    return float(cup_to_disc_ratio(mask_sizes(cup)[size], mask_sizes(disc)[size]))
