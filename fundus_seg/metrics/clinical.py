"""Cup-to-disc ratios, as an ophthalmologist reads them off a disc photograph.

Heights and widths are measured along the rows and columns of the photograph, from the first to the last pixel, both
included. Cup and disc are measured along the same axis, so the pixel spacing cancels and a ratio has no unit. The
challenges of this task score the absolute error of the vertical ratio (REFUGE: Orlando et al., Medical Image Analysis
59, 2020).

Every ratio is NaN if the disc is empty, 0 if only the cup is empty, and above 1 if the cup is larger than the disc,
which the caller has to check for.
"""

from __future__ import annotations

import math

import numpy as np

from fundus_seg.metrics.overlap import Mask, bounding_box, check_frames


def extents(mask: Mask) -> tuple[int, int]:
    """Height and width of a (H, W) mask in pixels, from its first to its last row and column; (0, 0) if it is empty."""
    rows, columns = bounding_box(mask)
    return rows.stop - rows.start, columns.stop - columns.start


def vertical_cup_to_disc_ratio(disc: Mask, cup: Mask) -> float:
    """vCDR: the height of the cup divided by the height of the disc.

    Args:
        disc: (H, W) mask of the whole disc, cup included, boolean.
        cup: (H, W) mask of the cup, boolean.

    Raises:
        ValueError: The masks differ in shape, are not boolean or not two-dimensional.
    """
    check_frames(disc, cup)
    return _ratio(extents(cup)[0], extents(disc)[0])


def horizontal_cup_to_disc_ratio(disc: Mask, cup: Mask) -> float:
    """hCDR: the width of the cup divided by the width of the disc; masks and errors as for the vertical ratio."""
    check_frames(disc, cup)
    return _ratio(extents(cup)[1], extents(disc)[1])


def area_cup_to_disc_ratio(disc: Mask, cup: Mask) -> float:
    """aCDR: the pixels of the cup divided by those of the disc; masks and errors as for the vertical ratio."""
    check_frames(disc, cup)
    return _ratio(int(np.count_nonzero(cup)), int(np.count_nonzero(disc)))


def _ratio(cup: int, disc: int) -> float:
    return cup / disc if disc else math.nan
