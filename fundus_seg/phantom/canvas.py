"""What the phantom is painted with: soft areas, random fields and mixed colours, on square canvases.

Coordinates are (x, y) as shares of a canvas's side, y downwards, whatever its number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_SUBPIXEL_BITS = 4  # OpenCV takes fixed-point coordinates


def colours(*rgb: tuple[float, float, float]) -> NDArray[np.float32]:
    """Colours (n, 3, 1, 1); each broadcasts over a canvas (3, side, side)."""
    return np.array(rgb, np.float32)[..., None, None]


def draw(
    canvas: NDArray[np.uint8], polygon: NDArray[np.float64], colour: Sequence[float], *, smooth: bool = True
) -> None:
    """Fill a polygon (n, 2), in shares of the side, on a square canvas; `smooth` antialiases its edge."""
    pixels = polygon * len(canvas) - 0.5  # for OpenCV, whole numbers are the centres of pixels
    fixed_point = np.round(pixels * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [fixed_point], colour, cv2.LINE_AA if smooth else cv2.LINE_8, _SUBPIXEL_BITS)


def clouds(rng: np.random.Generator, cells: int, side: int) -> NDArray[np.float32]:
    """A smooth random field (side, side), mean 0 and variance near 1, that varies over `1 / cells` of the side."""
    grid = rng.standard_normal((cells, cells), np.float32)
    return np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def area(outline: NDArray[np.float64], softness: float, side: int) -> NDArray[np.float32]:
    """The share of each pixel (side, side) inside a polygon, its edge blurred by `softness`, a share of the side."""
    canvas = np.zeros((side, side), np.uint8)
    draw(canvas, outline, (255,))
    return soften(canvas.astype(np.float32) / 255.0, softness)


def blend(below: NDArray[np.float32], above: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix two colours, (3, 1, 1) or (3, side, side), by the `share` (side, side) of the upper one."""
    return below + (above - below) * share


def soften(field: NDArray[np.float32], softness: float) -> NDArray[np.float32]:
    """Blur a field (side, side) with a Gaussian; its standard deviation is a share of the side."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), softness * len(field)), np.float32)
