"""Measurements that a clinician reads off the masks."""

from __future__ import annotations

import math

import numpy as np

from fundus_seg.metrics.overlap import Mask, check_masks


def vertical_cup_to_disc_ratio(disc: Mask, cup: Mask) -> float:
    """vCDR, the vertical extent of the cup over that of the disc, each last row - first row + 1.

    Both extents are in rows of one frame, so the spacing cancels. NaN if the disc is empty, 0 if only the cup is;
    above 1 if the cup reaches further than the disc, which is for the caller to notice.

    Args:
        disc: (H, W) mask of the whole disc, cup included, boolean.
        cup: (H, W) mask of the cup, boolean.

    Raises:
        ValueError: The masks differ in shape, are not boolean or not two-dimensional.
    """
    check_masks(disc, cup)
    if disc.ndim != 2:
        raise ValueError(f"masks must be (H, W), got shape {disc.shape}")
    disc_rows = _vertical_extent(disc)
    return _vertical_extent(cup) / disc_rows if disc_rows else math.nan


def _vertical_extent(mask: Mask) -> int:
    """Rows from the first to the last that holds a pixel of the mask, both counted; 0 if there is none."""
    rows = np.flatnonzero(mask.any(axis=1))
    return int(rows[-1] - rows[0]) + 1 if rows.size else 0
