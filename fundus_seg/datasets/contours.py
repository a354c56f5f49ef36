"""Read contours: text files of points, and the polygons of labelme, as masks (2, H, W) bool, channels (disc, cup).

Where the cup was not annotated, they are (1, H, W), the disc alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fundus_seg.data.limits import MAX_PIXELS
from fundus_seg.datasets.content import content_of
from fundus_seg.datasets.model import Rules
from fundus_seg.errors import DataError, one_line

_NUMBER = r"[-+]?\d+(?:,\d+)?(?:e[-+]?\d+)?"
_DECIMAL_COMMAS = re.compile(rf"\s*{_NUMBER}[\s;]+{_NUMBER}\s*", re.IGNORECASE)
_MOST_TEXT, _MOST_JSON = 1 << 22, 1 << 26  # bytes of a file; labelme may hold a copy of the photograph
_MARGIN = 0.05
"""How far a contour may leave its photograph, as a share of the longer side."""


def outlined(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """A text file of the disc's contour, and one of the cup's, if there is one: a point on each line, as x y in pixels.

    With the disc's file alone, the masks are (1, H, W).
    """
    return np.stack([filled([_points(path)], frame, path) for path in paths])


def labelme(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """The polygons `disc` and `cup` of a labelme file; (1, H, W), the disc alone, where it has no `cup`.

    They are drawn at the size that the file gives for its photograph.
    """
    (path,) = paths
    text = content_of(path, _MOST_JSON)
    polygons: dict[str, list[NDArray[np.float64]]] = {"disc": [], "cup": []}
    try:
        content = json.loads(text)
        size = int(content.get("imageHeight") or frame[0]), int(content.get("imageWidth") or frame[1])
        for shape in content["shapes"]:
            label = str(shape["label"]).strip().lower()
            if label in polygons and (kind := shape.get("shape_type", "polygon")) != "polygon":
                raise DataError(f"its {label} is a {kind}, not a polygon; draw it again as one", path)
            if label in polygons:
                polygons[label].append(_as_points(shape["points"]))
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"not a whole labelme file ({one_line(error)}); download it again", path) from error
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"it says that its photograph has {size[1]}x{size[0]} pixels; download it again", path)
    if not polygons["disc"]:
        raise DataError("no polygon of the disc; download it again", path)
    masks = [filled(those, size, path) for those in polygons.values() if those]
    return np.stack(masks)


def filled(contours: Sequence[NDArray[np.float64]], frame: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    """The area (H, W) within closed contours, the pixels under their lines included.

    Args:
        contours: the points (n, 2) of each, x and y in pixels from the centre of the upper left one, in their order.
        frame: (H, W).
        path: the file, for errors.

    Raises:
        DataError: fewer than three points, or points outside the photograph.
    """
    area = np.zeros(frame, np.uint8)
    margin = _MARGIN * max(frame)
    for points in contours:
        if len(points) < 3:
            raise DataError(f"a contour of {len(points)} points, but an area needs three; download it again", path)
        if not ((points >= -margin) & (points <= np.array(frame[::-1]) + margin)).all():  # NaN is outside, too
            size = f"{frame[1]}x{frame[0]}"
            raise DataError(f"a contour that leaves its photograph of {size} pixels; download both again", path)
        cv2.fillPoly(area, [np.rint(points).astype(np.int32)], 1)
    return area.view(bool)


def _points(path: Path) -> NDArray[np.float64]:
    """The points (n, 2) of a text file.

    Numbers may be parted by spaces, tabs, commas or semicolons. Commas within two numbers that are parted otherwise are
    decimal ones, as programs write them on a Spanish computer.
    """
    points = []
    lines = content_of(path, _MOST_TEXT).decode("utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        decimal = "." if _DECIMAL_COMMAS.fullmatch(line) else " "
        cells = line.replace(",", decimal).replace(";", " ").split()
        if not cells:
            continue
        try:
            x, y = map(float, cells)
        except ValueError as error:
            raise DataError("not two numbers, x and y; download it again", path, number) from error
        points.append((x, y))
    return _as_points(points)


def _as_points(points: ArrayLike | Any) -> NDArray[np.float64]:
    array = np.array(points, np.float64)
    if array.size and array.shape[1:] != (2,):
        raise ValueError("points without x and y")
    return array.reshape(-1, 2)
