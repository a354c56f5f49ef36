"""Readers of truth: small functions that turn the files of one case into masks (2, H, W) bool, channels (disc, cup).

Each has the form `model.Read`. A cup may leave its disc here: `case.py` clips and counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import DOFE, LABELS, merged
from fundus_seg.data.io import frame_text, read_binary_mask, read_greys, read_image, read_mask
from fundus_seg.datasets.model import COMBINED, Rules
from fundus_seg.errors import DataError

SOFT_GREYS = (0, 64, 128, 191, 255)
"""The greys of a soft map: 0 to 4 of four experts."""


def coded(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """One file of three areas, as 0 cup, 128 rim, 255 background, or as the labels 0 background, 1 rim, 2 cup.

    A file whose greys are all 2 or less has labels: in the other coding it would be all cup.
    """
    (path,) = paths
    return read_mask(path, lambda pixels: LABELS if pixels.max() <= 2 else DOFE)


def binary_pair(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """A binary file of the disc, and one of the cup; they have the same size."""
    return _stacked([read_binary_mask(path) for path in paths], paths)


def bright_pair(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """A file of the disc, and one of the cup, inside which red is above 128; other channels and transparency are noise.

    Such files are binary but for a soft border, and stored with four channels.
    """
    return _stacked([read_image(path)[..., 0] > 128 for path in paths], paths)


def soft_pair(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """A map of the disc and one of the cup, whose greys tell how many of four experts drew each pixel.

    A pixel is inside if at least `rules.agreement` of the experts drew it.
    """
    maps = [read_greys(path) for path in paths]
    for path, greys in zip(paths, maps, strict=True):
        odd = np.setdiff1d(np.flatnonzero(cv2.calcHist([greys], [0], None, [256], [0, 256])), SOFT_GREYS)
        if odd.size:
            levels = ", ".join(map(str, SOFT_GREYS))
            raise DataError(f"greys {odd[:3]} in a soft map of four experts ({levels}); download it again", path)
    least = SOFT_GREYS[rules.agreement]
    return _stacked([greys >= least for greys in maps], paths)


def combined(masks: Sequence[NDArray[np.bool_]], how: str) -> NDArray[np.bool_]:
    """Combine the masks (2, H, W) of several readers into one.

    Args:
        masks: of each reader.
        how: `majority` (more than half), `union`, `intersection`, or `staple`.
    """
    for merge in COMBINED:
        if how == merge and merge != "staple":
            return merged(masks, merge)  # type: ignore[arg-type]
    return np.stack([staple([mask[structure] for mask in masks]) for structure in range(len(masks[0]))])


def staple(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The hidden truth of several readers' masks (H, W), estimated with each reader's sensitivity and specificity.

    Pixels whose probability is above one half are inside. SimpleITK estimates it (its `STAPLE`), on the box that holds
    every reader's mask and a border of its own size, so that the result does not depend on how much background the
    photograph shows.

    Source: Warfield, Zou and Wells, "Simultaneous truth and performance level estimation (STAPLE)", IEEE TMI 2004.
    """
    import SimpleITK

    union = np.any(masks, axis=0)
    if not union.any() or all(np.array_equal(mask, masks[0]) for mask in masks):
        return np.array(masks[0])
    rows, columns = (np.flatnonzero(union.any(axis=axis)) for axis in (1, 0))
    box = tuple(
        slice(max(0, places[0] - len(places) // 2), places[-1] + 1 + len(places) // 2) for places in (rows, columns)
    )
    images = [SimpleITK.GetImageFromArray(mask[box].astype(np.uint8)) for mask in masks]
    truth = np.zeros(union.shape, bool)
    truth[box] = SimpleITK.GetArrayFromImage(SimpleITK.STAPLE(images, 1.0)) > 0.5
    return truth


def _stacked(masks: Sequence[NDArray[np.bool_]], paths: Sequence[Path]) -> NDArray[np.bool_]:
    if len({mask.shape for mask in masks}) > 1:
        sizes = " and ".join(frame_text(mask) for mask in masks)
        raise DataError(f"the masks of disc and cup have different sizes, {sizes}; download them again", paths[0])
    return np.stack(masks)
