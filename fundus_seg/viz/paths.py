"""The contours of masks as paths of SVG, for pages that draw them over a photograph."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 0.35
"""Pixels of a picture by which a contour may be off."""


def contour_paths(
    masks: NDArray[np.bool_], size: tuple[int, int], drawn: Sequence[bool] = (True, True)
) -> tuple[str, ...]:
    """The contours of masks, a path each, none of an empty mask.

    Args:
        masks: (2, H, W) bool.
        size: width and height of the picture, in whose pixels the paths are.
        drawn: whether somebody has drawn disc and cup; what nobody has drawn has no path.
    """
    scale = np.array(size) / masks.shape[:0:-1]
    paths = []
    for mask, told in zip(masks, drawn, strict=True):
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        lines = [
            cv2.approxPolyDP(((each[:, 0] + 0.5) * scale).astype(np.float32), _TOLERANCE, True) for each in contours
        ]
        if told and lines:
            paths.append("".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line[:, 0]) + "Z" for line in lines))
    return tuple(paths)
