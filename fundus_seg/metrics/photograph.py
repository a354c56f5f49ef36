"""What a photograph is like: colour, light, sharpness and contrast, from plain arrays.

Lightness L* (0 black to 100 white) and the colour axes a* (green to red) and b* (blue to yellow) are those of CIE 1976
L*a*b*, of sRGB under D65: equal steps look about equally large, so one unit serves for all of them.

What depends on scale is comparable only between photographs of one size: `at_common_size` first.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.metrics.overlap import Mask

SIDE = 256
"""Height and width of the common size: the default training size, so that what is measured is what networks see."""
_DARK = 16
"""Grey levels; no channel of the frame around the camera's aperture reaches it, nor does what JPEG leaves there."""
_MARGIN = 1 / 32
"""Of the frame's height: how far from the disc the ground around it begins, beyond blur and inexact outlines."""

Plane = NDArray[np.float32]
"""(H, W), a value a pixel."""


def at_common_size(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A photograph (H, W, 3) and its masks (2, H, W) at SIDE x SIDE: area averages, and masks by nearest pixel."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    sized = [cv2.resize(mask.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return np.asarray(small, np.uint8), np.stack(sized).astype(bool)


def lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """L*, a* and b* (H, W, 3) of an RGB photograph (H, W, 3)."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def field_of_view(image: NDArray[np.uint8]) -> Mask:
    """Where the camera's aperture let light in: the pixels (H, W) of which some channel is above 15 of 255.

    The frame's border and what lies next to the dark are left out: resizing mixes both into them.
    """
    bright = (image.max(axis=2) >= _DARK).astype(np.uint8)
    return np.asarray(cv2.erode(bright, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0), bool)


def sharpness(lightness: Plane, field: Mask) -> float:
    """SD of the Laplacian of L* (4 neighbours) over the field, in L* per squared pixel; NaN for an empty field.

    The square root of the variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield
    microscopy, ICPR 2000; LAPV in the comparison of Pertuz et al., Pattern Recognition 46, 2013). Focus raises it, but
    so do contrast, noise and sharpening in the camera: it tells that cameras differ, not which of them is in focus.
    """
    laplacian = cv2.Laplacian(lightness, cv2.CV_32F, ksize=1)[field]
    return float(laplacian.std()) if laplacian.size else math.nan


def unevenness(lightness: Plane, ground: Mask) -> float:
    """SD over the ground of the quadratic surface that fits L* there best: how unevenly the retina is lit, in L*.

    A polynomial of low order is the usual model of the shading of fundus photographs; vessels are too fine for it, and
    the disc, bright by itself, is to be left out of the ground. NaN for fewer than six pixels.
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
    """The field (H, W) beyond the disc and a margin of 1/32 of the frame's height around it."""
    return field & ~_grown(disc, 1)


def ring_around(disc: Mask, field: Mask) -> Mask:
    """The field (H, W) between one and four such margins from the disc: what the disc's edge must stand out from."""
    return field & _grown(disc, 4) & ~_grown(disc, 1)


def _grown(mask: Mask, margins: int) -> Mask:
    reach = max(1, round(margins * _MARGIN * len(mask)))
    circle = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(mask.astype(np.uint8), circle).astype(bool)


def photograph_measures(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> dict[str, float]:
    """All measures of one photograph (H, W, 3) with masks (2, H, W), channels ("disc", "cup").

    Returns:
        `red`, `green`, `blue` (0 to 255), `lightness`, `a`, `b` (L*a*b*): means over the field of view; the same with
        `_sd`: their SD over its pixels, `lightness_sd` being the RMS contrast (Peli, JOSA A 7, 1990, here of L*);
        `unevenness` outside the disc; `sharpness`; `disc_contrast`, L* of the disc minus that of the retina around it;
        `cup_contrast`, L* of the cup minus that of the rim. NaN where a region is empty.
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
