"""Measure a photograph: its colour, light, sharpness and contrast, from plain arrays.

Lightness L* (0 black to 100 white) and the colour axes a* (green to red) and b* (blue to yellow) are those of CIE 1976
L*a*b*, of sRGB under D65: equal steps look about equally large, so one unit serves for all of them.

Sharpness and other measures that depend on scale are comparable only between photographs of one size: call
`at_common_size` first.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.metrics.overlap import Mask

SIDE = 256
"""Height and width of the common size: the default training size, at which networks see photographs."""
_DARK = 16
"""Grey level that no channel reaches outside the camera's aperture, traces of JPEG included."""
_MARGIN = 1 / 32
"""Width of the margin around the disc, as a share of the frame's height: it keeps blur and inexact outlines out."""

_BLOCKS, _LEAST_SPREAD = 16, 8
"""Of 109 whole photographs and 327 crops around their discs, none spreads by less than 51; at 8 % of their light, the
whole ones still by 9."""

Plane = NDArray[np.float32]
"""(H, W), one value for each pixel."""


def at_common_size(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Resize a photograph (H, W, 3) and its masks (2, H, W) to SIDE x SIDE, by area averages and by nearest pixel."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    sized = [cv2.resize(mask.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return np.asarray(small, np.uint8), np.stack(sized).astype(bool)


def lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """L*, a* and b* (H, W, 3) of an RGB photograph (H, W, 3)."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def field_of_view(image: NDArray[np.uint8]) -> Mask:
    """The field of view (H, W): pixels inside the camera's aperture, with a channel above 15 of 255.

    Pixels at the border of the frame or next to a dark pixel are left out, since resizing may have mixed both.
    """
    bright = (image.max(axis=2) >= _DARK).astype(np.uint8)
    return np.asarray(cv2.erode(bright, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0), bool)


def sharpness(lightness: Plane, field: Mask) -> float:
    """SD of the Laplacian of L* (4 neighbours) over the field, in L* per squared pixel; NaN for an empty field.

    The square root of the variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield
    microscopy, ICPR 2000; LAPV in the comparison of Pertuz et al., Pattern Recognition 46, 2013). Focus raises it, but
    so do contrast, noise and sharpening in the camera: it shows that cameras differ, not which of them is in focus.
    """
    laplacian = cv2.Laplacian(lightness, cv2.CV_32F, ksize=1)[field]
    return float(laplacian.std()) if laplacian.size else math.nan


def unevenness(lightness: Plane, ground: Mask) -> float:
    """How unevenly the retina is lit, in L*: the SD over the ground of the quadratic surface that fits L* there best.

    A polynomial of low order is the usual model of the shading of fundus photographs; it is too smooth to follow
    vessels. The ground (H, W) must not include the disc, which is bright by itself. NaN for fewer than six pixels.
    """
    rows, columns = np.nonzero(ground)
    if len(rows) < 6:
        return math.nan
    y, x = 2 * rows / len(lightness) - 1, 2 * columns / lightness.shape[1] - 1
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    weights, *_ = np.linalg.lstsq(terms, lightness[ground].astype(float), rcond=None)
    return float((terms @ weights).std())


def difference(plane: Plane, inside: Mask, outside: Mask) -> float:
    """Mean over one region minus the mean over another; NaN if either is empty."""
    return float(plane[inside].mean() - plane[outside].mean()) if inside.any() and outside.any() else math.nan


def ground_around(disc: Mask, field: Mask) -> Mask:
    """The field of view (H, W) without the disc and a margin of 1/32 of the frame's height around it."""
    return field & ~_grown(disc, 1)


def ring_around(disc: Mask, field: Mask) -> Mask:
    """The field of view (H, W) between one and four such margins from the disc: the background of the disc's edge."""
    return field & _grown(disc, 4) & ~_grown(disc, 1)


def _grown(mask: Mask, margins: int) -> Mask:
    """The mask, extended by a number of margins in all directions."""
    reach = max(1, round(margins * _MARGIN * len(mask)))
    circle = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(mask.astype(np.uint8), circle).astype(bool)


def is_of_one_colour(image: NDArray[np.uint8]) -> bool:
    """Whether a picture shows nothing: black, white or any other one colour, at most with noise or small letters on it.

    The picture is averaged over 16 x 16 blocks. It is of one colour if, in each channel, nine tenths of the blocks lie
    within less than 8 grey levels. That finds a closed shutter and an empty page. It does not find a picture of
    something else than an eye, nor an eye that is out of focus.

    Args:
        image: (H, W, 3) uint8.
    """
    blocks = np.asarray(Image.fromarray(image).resize((_BLOCKS, _BLOCKS), Image.Resampling.BOX))
    low, high = np.percentile(blocks, [5, 95], axis=(0, 1))
    return bool((high - low).max() < _LEAST_SPREAD)


def photograph_measures(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> dict[str, float]:
    """All measures of one photograph (H, W, 3) uint8 with masks (2, H, W) bool, channels ("disc", "cup").

    Returns:
        By name: `red`, `green`, `blue` (0 to 255), `lightness`, `a` and `b` (L*a*b*), the means over the field of view;
        the same names with `_sd`, their SD over its pixels (`lightness_sd` is the RMS contrast of Peli, JOSA A 7, 1990,
        of L*); `unevenness` outside the disc; `sharpness`; `disc_contrast`, L* of the disc minus that of the retina
        around it; `cup_contrast`, L* of the cup minus that of the rim. A measure is NaN if its region is empty.
    """
    image, (disc, cup) = at_common_size(image, masks)
    colours = lab(image)
    field, lightness = field_of_view(image), np.ascontiguousarray(colours[..., 0])
    measures: dict[str, float] = {}
    channels = np.concatenate([image[field], colours[field]], axis=1)
    for name, values in zip(("red", "green", "blue", "lightness", "a", "b"), channels.T, strict=True):
        measures[name] = float(values.mean()) if values.size else math.nan
        measures[f"{name}_sd"] = float(values.std()) if values.size else math.nan
    return measures | {
        "unevenness": unevenness(lightness, ground_around(disc, field)),
        "sharpness": sharpness(lightness, field),
        "disc_contrast": difference(lightness, disc & field, ring_around(disc, field)),
        "cup_contrast": difference(lightness, cup & field, disc & ~cup & field),
    }
