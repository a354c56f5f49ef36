"""Contours of masks drawn over a photograph.

A line is drawn where the signed distance to the mask's edge is small, not along a chain of pixels: holes, several
components and masks at the frame need no case of their own, the width may be a fraction of a pixel, and the
anti-aliasing is the distance itself.

Prediction and truth differ by their dashes and not by colour alone, and every line has a dark halo, so that readers
with any colour vision find them on dark, bright and reddish retinas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.protocol import STRUCTURES
from fundus_seg.viz.strips import Colour, Key

STRUCTURE_COLOURS = ((86, 180, 233), (0, 158, 115))
"""RGB of the predicted disc and cup: sky blue and bluish green of Okabe and Ito (2008), as in `style.PALETTE`."""
TRUTH_COLOUR = (255, 255, 255)
"""RGB of both structures of the truth, which is dashed."""

_HALO = 0.7  # how much a line's halo darkens what lies under it
_SMOOTHING = 2.0  # pixels (sigma): irons out the staircase of a mask drawn at full resolution
_MOST_SHIFT = 0.5  # pixels: how far the smoothing may move an edge, so that small and thin parts stay in place
_DASH = 8.0  # widths of the line from one dash to the next; a dash is half of it
_TRUTH_WIDTH = 0.7  # of the width of a predicted line, above which the truth is drawn: where both agree, both show


def draw_contours(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None = None,
    *,
    thickness: float | None = None,
) -> NDArray[np.uint8]:
    """Draw the edges of the masks over a copy of the image: disc sky blue, cup green, truth in dashes of white.

    Args:
        image: (H, W, 3) uint8, RGB.
        masks: (2, H, W) boolean, structures ("disc", "cup").
        truth: (2, H, W) boolean.
        thickness: Width of the predicted lines in pixels, without their halo; by default that of `line_width`.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: The image is not (H, W, 3) uint8, masks do not fit it, or the thickness is not above 0.
    """
    check_masks(image, masks, truth)
    width = line_width(max(image.shape[:2])) if thickness is None else thickness
    if not width > 0:
        raise ValueError(f"thickness must be above 0, got {thickness}")
    return _drawn(image, masks, truth, width, scale=1)


def draw_resized(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_] | None,
    truth: NDArray[np.bool_] | None,
    size: tuple[int, int],
    width: float,
) -> NDArray[np.uint8]:
    """The image in another size, with lines that are as sharp and as wide there as this one's.

    Args:
        image: (H, W, 3) uint8, RGB.
        masks: (2, H, W) boolean, structures ("disc", "cup"); None draws none. `check_masks` has seen that they fit.
        truth: (2, H, W) boolean; None draws none.
        size: height and width of the result, H' and W', in the proportion of the image's.
        width: of the predicted lines in pixels of the result.

    Returns:
        (H', W', 3) uint8, a new array.
    """
    height, columns = image.shape[:2]
    scale = max(1, math.ceil(max(size) / max(height, columns)))
    enlarged = resized(image, (scale * height, scale * columns))
    return resized(_drawn(enlarged, masks, truth, width * scale * max(height, columns) / max(size), scale), size)


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) in the size (H', W'): the same array if it has that size already."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def keys(width: float, *, masks: bool, truth: bool) -> list[Key]:
    """What a legend says of lines of this width: of masks, and of a truth."""
    said = " predicted" if truth else ""
    named = zip(STRUCTURES, STRUCTURE_COLOURS, strict=True) if masks else ()
    return [Key(f"{structure}{said}", colour, width) for structure, colour in named] + (
        [Key("truth", TRUTH_COLOUR, _TRUTH_WIDTH * width, dashed=True)] if truth else []
    )


def line_width(longest: int) -> float:
    """Width in pixels of the lines on a picture with this longer side, so that all pictures look alike on a screen."""
    return max(1.5, longest / 240)


def check_masks(image: NDArray[np.uint8], masks: NDArray[np.bool_] | None, truth: NDArray[np.bool_] | None) -> None:
    """Raise a ValueError unless the image is (H, W, 3) uint8 and masks, where there are any, are (2, H, W) boolean."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    size = image.shape[:2]
    for name, pair in (("masks", masks), ("truth", truth)):
        if pair is not None and (pair.shape != (2, *size) or pair.dtype != np.bool_):
            raise ValueError(f"{name} must be {(2, *size)} bool, got {pair.shape} {pair.dtype}")


@dataclass(frozen=True)
class _Edge:
    """The edge of a mask in a window of the padded canvas.

    Attributes:
        window: rows and columns.
        distance: of every pixel centre of the window to the edge, in pixels, positive inside.
        colour, width: of its line.
        dash: pixels along the edge from one dash to the next; None for a line without gaps.
    """

    window: tuple[slice, slice]
    distance: NDArray[np.float32]
    colour: Colour
    width: float
    dash: float | None

    def coverage(self, width: float) -> NDArray[np.float32]:
        """How much of each pixel a line of this width along the edge covers, of 0 to 1."""
        line = np.clip(np.float32(width / 2 + 0.5) - np.abs(self.distance), 0, min(1, width))
        return line if self.dash is None else line * _dashes(self.distance, self.dash)


def _drawn(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_] | None,
    truth: NDArray[np.bool_] | None,
    width: float,
    scale: int,
) -> NDArray[np.uint8]:
    """The image (s H, s W, 3) with the lines of masks (2, H, W), enlarged by the factor `scale`."""
    # Room for the line and the smoothing on all sides also closes the contour of a mask that the frame cuts.
    halo = max(1.0, width / 2)
    margin = math.ceil((width / 2 + halo) / scale + 3 * _SMOOTHING)
    edges = [
        _Edge(*_edge(mask, margin, scale), colour, width, None)
        for mask, colour in zip(() if masks is None else masks, STRUCTURE_COLOURS, strict=False)
        if mask.any()
    ] + [
        _Edge(*_edge(mask, margin, scale), TRUTH_COLOUR, _TRUTH_WIDTH * width, _DASH * width)
        for mask in (() if truth is None else truth)
        if mask.any()
    ]
    around = margin * scale
    canvas = np.pad(image, ((around, around), (around, around), (0, 0)))
    for edge in edges:
        _blend(canvas[edge.window], _HALO * edge.coverage(edge.width + 2 * halo), (0, 0, 0))
    for edge in edges:  # after every halo, so that none darkens a line
        _blend(canvas[edge.window], edge.coverage(edge.width), edge.colour)
    return canvas[around:-around, around:-around].copy()


def _blend(under: NDArray[np.uint8], coverage: NDArray[np.float32], colour: Colour) -> None:
    """Lay a colour over an image (H, W, 3), in place, as far as the coverage (H, W) goes."""
    under[...] = np.rint(under + coverage[..., None] * (np.asarray(colour, np.float32) - under))


def _edge(mask: NDArray[np.bool_], margin: int, scale: int) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """The window around a mask in the canvas, which has a margin, and the distances in it, both enlarged."""
    pixels = np.pad(mask, margin).view(np.uint8)
    left, top, columns, rows = cv2.boundingRect(pixels)
    window = np.s_[top - margin : top + rows + margin, left - margin : left + columns + margin]
    distance = _signed_distance(pixels[window])
    if scale > 1:
        enlarged_distance = cv2.resize(distance, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        distance = np.asarray(scale * enlarged_distance, np.float32)
    enlarged = tuple(slice(scale * side.start, scale * side.stop) for side in window)
    return (enlarged[0], enlarged[1]), distance


def _signed_distance(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Distance of every pixel centre to the smoothed edge of the mask (0 or 1), in pixels, positive inside."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Both count from centre to centre, and the edge runs half-way between.
    distance = inside - outside - (mask - np.float32(0.5))
    smooth = cv2.GaussianBlur(distance, (0, 0), _SMOOTHING)
    return np.clip(smooth, distance - _MOST_SHIFT, distance + _MOST_SHIFT)


def _dashes(distance: NDArray[np.float32], period: float) -> NDArray[np.float32]:
    """1 where a dash is, 0 in the gaps, by the length of the nearest contour up to its nearest point."""
    contours, _ = cv2.findContours((distance > 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    phase = np.ones(distance.shape, np.float32)
    off_contour = np.ones(distance.shape, np.uint8)
    for contour in contours:
        points = contour[:, 0]
        lengths = np.hypot(*np.diff(points, axis=0, append=points[:1]).T)
        number = round(lengths.sum() / period)
        # A whole number of dashes goes round; a contour of less than two is not dashed.
        along = np.cumsum(lengths) * (number / max(lengths.sum(), 1)) % 1 if number > 1 else np.zeros(len(points))
        phase[points[:, 1], points[:, 0]] = along
        off_contour[points[:, 1], points[:, 0]] = 0
    _, labels = cv2.distanceTransformWithLabels(
        off_contour, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(labels.max() + 1, np.float32)
    of_label[labels[off_contour == 0]] = phase[off_contour == 0]
    # The middle of a dash is at phase 0, its ends are a pixel soft.
    from_middle = np.abs((of_label[labels] + 0.5) % 1 - 0.5) * period
    return np.clip(period / 4 + 0.5 - from_middle, 0, 1)
