"""Find the field of view: the part of a photograph that shows the eye, among a dark border and letters in it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.box import Box

_SMALL = 256
_LIGHT = 0.08
"""Share of the way from the darkest to the brightest of a photograph above which it is the field of view."""
_LEAST_LIGHT = 8.0
_LEAST_FIELD = 0.02
"""Share of the photograph that a field of view takes at least."""
_CORNER, _DARK = 0.03, 0.18
"""Side of a corner as a share of the photograph's; and its light, as a share of the brightest, below which it is dark.
The third darkest corner has .16 at most in 109 whole photographs; in 422 crops of Drishti-GS and REFUGE it has at least
.20, in 240 of the phantom .32."""
_AS_LARGE = 0.3
"""Share of the largest part from which another one belongs to the field: a shadow cuts it, or there are two eyes."""


def field_box(image: NDArray[np.uint8]) -> Box:
    """The rectangle around the field of view of a photograph (H, W, 3): the largest parts that are not dark.

    Letters in the border are smaller than they. A photograph without a border is a field of view as a whole.
    """
    height, width = image.shape[:2]
    light = _light(image)
    size = (light.shape[1], light.shape[0])
    dark, bright = (float(each) for each in np.percentile(light, [2, 98]))
    seen = (light > dark + max(_LEAST_LIGHT, _LIGHT * (bright - dark))).astype(np.uint8)
    seen = np.asarray(cv2.morphologyEx(seen, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(seen)
    if len(stats) < 2:
        return Box.whole(image.shape)
    largest = stats[1:, cv2.CC_STAT_AREA].max()
    if largest < _LEAST_FIELD * seen.size:
        return Box.whole(image.shape)
    x, y, columns, rows, _ = stats[1:][stats[1:, cv2.CC_STAT_AREA] > _AS_LARGE * largest].T
    left, top = x.min(), y.min()
    columns, rows = (x + columns).max() - left, (y + rows).max() - top
    across, down = width / size[0], height / size[1]
    return Box(round(left * across), round(top * down), round(columns * across), round(rows * down))


def shows_border(image: NDArray[np.uint8]) -> bool:
    """Whether three corners of a photograph (H, W, 3) at least are dark, so that it shows the whole field of view.

    A crop about the disc may reach beyond the edge of the field, but then has two dark corners at most.
    """
    light = _light(image)
    height, width = (max(1, round(_CORNER * length)) for length in light.shape)
    ends = [(slice(None, length), slice(-length, None)) for length in (height, width)]
    corners = sorted(float(light[rows, columns].mean()) for rows in ends[0] for columns in ends[1])
    return corners[2] < _DARK * float(np.percentile(light, 98))


def _light(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The brightest channel of a photograph (H, W, 3), made small: 256 pixels a side at most."""
    height, width = image.shape[:2]
    shrink = min(1.0, _SMALL / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA).max(axis=2), np.uint8)
