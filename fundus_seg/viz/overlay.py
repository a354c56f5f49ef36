"""Contours of masks drawn over a photograph.

A line is drawn where the signed distance to the mask's edge is small, not along a chain of pixels: holes, several
components and masks at the frame need no case of their own, the width may be a fraction of a pixel, and the
anti-aliasing is the distance itself.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

TRUTH_COLOUR = (255, 0, 0)
"""RGB of both structures of the truth."""
STRUCTURE_COLOURS = ((0, 255, 0), (0, 80, 255))
"""RGB of the predicted disc and cup."""

_SMOOTHING = 2.0  # pixels (sigma): irons out the staircase of a mask drawn at full resolution
_MOST_SHIFT = 0.5  # pixels: how far the smoothing may move an edge, so that small and thin parts stay in place


def draw_contours(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None = None,
    *,
    thickness: float | None = None,
) -> NDArray[np.uint8]:
    """Draw the edges of the masks over a copy of the image: disc green, cup blue, above those of the truth in red.

    Args:
        image: (H, W, 3) uint8, RGB.
        masks: (2, H, W) boolean, structures ("disc", "cup").
        truth: (2, H, W) boolean.
        thickness: Width of the lines in pixels; by default the longer side / 400, at least 1.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: The image is not (H, W, 3) uint8, masks do not fit it, or the thickness is not above 0.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    size = image.shape[:2]
    for name, pair in (("masks", masks), ("truth", truth)):
        if pair is not None and (pair.shape != (2, *size) or pair.dtype != np.bool_):
            raise ValueError(f"{name} must be {(2, *size)} bool, got {pair.shape} {pair.dtype}")
    width = max(1.0, max(size) / 400) if thickness is None else thickness
    if not width > 0:
        raise ValueError(f"thickness must be above 0, got {thickness}")

    layers = [] if truth is None else [(mask, TRUTH_COLOUR) for mask in truth]
    layers += zip(masks, STRUCTURE_COLOURS, strict=True)
    # Room for the line and the smoothing on all sides also closes the contour of a mask that the frame cuts.
    margin = math.ceil(width / 2 + 3 * _SMOOTHING)
    canvas = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    for mask, colour in layers:
        _draw_edge(canvas, np.pad(mask, margin), colour, width, margin)
    return canvas[margin:-margin, margin:-margin].copy()


def _draw_edge(
    canvas: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int], width: float, margin: int
) -> None:
    """Blend the edge of one mask, which keeps `margin` pixels from the sides, into the canvas."""
    pixels = mask.view(np.uint8)
    left, top, columns, rows = cv2.boundingRect(pixels)
    if columns == 0:
        return
    window = np.s_[top - margin : top + rows + margin, left - margin : left + columns + margin]
    coverage = np.clip(width / 2 + 0.5 - np.abs(_signed_distance(pixels[window])), 0, min(1, width))[..., None]
    canvas[window] = np.rint(canvas[window] + coverage * (np.asarray(colour, np.float32) - canvas[window]))


def _signed_distance(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Distance of every pixel centre to the smoothed edge of the mask (0 or 1), in pixels, positive inside."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Both count from centre to centre, and the edge runs half-way between.
    distance = inside - outside - (mask - np.float32(0.5))
    smooth = cv2.GaussianBlur(distance, (0, 0), _SMOOTHING)
    return np.clip(smooth, distance - _MOST_SHIFT, distance + _MOST_SHIFT)
