"""The picture of a photograph with contours: its name and scores above, a legend below, and a small disc enlarged."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.builtins import PictureFormat
from fundus_seg.runs.atomic import atomic_path
from fundus_seg.viz.contours import check_masks, draw_resized, keys, line_width
from fundus_seg.viz.strips import Strips
from fundus_seg.viz.zoom import beside, padded, window_around

PICTURE_SUFFIX: dict[PictureFormat, str] = {"jpeg": ".jpg", "png": ".png"}

_LEAST_SIDE = 480  # pixels: smaller photographs are enlarged, or no text would fit
_MOST_ENLARGED = 60
_SMALL = 0.35  # of the longer side: if the square about the disc is smaller, it is also shown enlarged
_LINES_ON_SMALL = 1 / 40  # width of the lines on the whole photograph then, as a part of that square's side
_LINES_OF_TEXT = 40  # the text's height is this part of the picture's width
_SMALLEST_TEXT = 12  # pixels
_QUALITY = 90


def draw_overlay(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None = None,
    *,
    name: str,
    texts: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """The contours on the photograph, its name and what is to be said of it above, a legend of the lines below.

    Where the disc is small in the photograph, as on a whole retina, the square about it is marked, and stands enlarged
    beside the photograph.

    Args:
        image: (H, W, 3) uint8, RGB. If its longer side is below 480 pixels, it is enlarged by a whole factor, up to 60.
        masks: (2, H, W) boolean, structures ("disc", "cup").
        truth: (2, H, W) boolean.
        name: name of the case; shortened if it is too long.
        texts: short texts, such as scores, that stand beside it.

    Returns:
        (H', W', 3) uint8: the photograph, not covered but by the lines, and the strips.

    Raises:
        ValueError: The image is not (H, W, 3) uint8, or masks do not fit it.
    """
    check_masks(image, masks, truth)
    longest = max(image.shape[:2])
    scale = min(_MOST_ENLARGED, math.ceil(_LEAST_SIDE / longest))
    height, columns = (scale * length for length in image.shape[:2])
    width = line_width(scale * longest)
    window = window_around([masks] if truth is None else [masks, truth])
    if window is None or window.side >= _SMALL * longest:
        drawn = draw_resized(image, masks, truth, (height, columns), width)
    else:
        drawn = draw_resized(image, masks, truth, (height, columns), min(width, _LINES_ON_SMALL * scale * window.side))
        window.mark(drawn, scale)
        side = min(height, columns)
        shown = window.cut_image(image), window.cut(masks), window.cut(truth)
        drawn = beside([drawn, draw_resized(*shown, (side, side), width)])
    whole = max(drawn.shape[1], _LEAST_SIDE * 2 // 3)
    strips = Strips(whole, max(_SMALLEST_TEXT, round(min(whole, 2 * height) / _LINES_OF_TEXT)))
    margin = whole - drawn.shape[1]
    middle = padded(drawn, 0, 0, margin // 2, margin - margin // 2)
    legend = strips.legend(keys(width, masks=True, truth=truth is not None))
    return np.concatenate([strips.caption(name, texts), middle, legend])


def encode_picture(picture: NDArray[np.uint8], form: PictureFormat = "jpeg") -> bytes:
    """The bytes of a file with a picture (H, W, 3), as a notebook shows it: `IPython.display.Image(data=...)`."""
    written = io.BytesIO()
    if form == "jpeg":
        # Colours at full resolution: halved, thin coloured lines would fade.
        Image.fromarray(picture).save(written, format="JPEG", quality=_QUALITY, subsampling=0)
    else:
        Image.fromarray(picture).save(written, format="PNG")
    return written.getvalue()


def save_picture(picture: NDArray[np.uint8], path: Path, form: PictureFormat) -> None:
    """Write a picture (H, W, 3) atomically.

    Raises:
        RunError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_picture(picture, form))
