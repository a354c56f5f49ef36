"""A crop of a photograph: cut it out, and put a mask of it back into the whole photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.errors import DataError

Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True)
class Crop:
    """Which part of a photograph a crop shows, and at which size. All lengths are pixels of the photograph, upright.

    Attributes:
        frame_width, frame_height: the size of the whole photograph.
        left, top, width, height: the crop's box, which may leave the photograph.
        pad_left, pad_top, pad_right, pad_bottom: how much of the box shows nothing of the photograph, on each side.
        scale_x, scale_y: pixels of the crop for one pixel of the photograph; 1 for a crop that is not resampled.
    """

    frame_width: int
    frame_height: int
    left: int
    top: int
    width: int
    height: int
    pad_left: int
    pad_top: int
    pad_right: int
    pad_bottom: int
    scale_x: float
    scale_y: float

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) of the crop's own pixels."""
        return round(self.width * self.scale_x), round(self.height * self.scale_y)

    def cut(self, pixels: NDArray[Pixel], fill: Any, *, smooth: bool) -> NDArray[Pixel]:
        """Cut the crop out of an array (H, W) or (H, W, C).

        Args:
            pixels: the photograph's, or those of an image of its size.
            fill: the value of pixels where the photograph shows nothing.
            smooth: whether a crop that is resampled is interpolated; else each pixel takes the nearest one's value.
        """
        rows, columns = self._seen()
        box = np.full((self.height, self.width, *pixels.shape[2:]), fill, pixels.dtype)
        box[self._inner()] = pixels[rows, columns]
        return box if self.size == (self.width, self.height) else _resized(box, self.size, smooth=smooth)

    @property
    def native(self) -> Crop:
        """The same part of the photograph, in the photograph's own pixels."""
        return replace(self, scale_x=1.0, scale_y=1.0)

    def whole(self, masks: NDArray[Pixel]) -> NDArray[Pixel]:
        """Put masks, or other maps (..., h, w), of the crop into the whole photograph: (..., H, W), 0 outside the crop.

        Raises:
            DataError: the masks have another size than the crop.
        """
        height, width = masks.shape[-2:]
        if (width, height) != self.size:
            own = f"{self.size[0]}x{self.size[1]}"
            raise DataError(f"a mask of {width}x{height} pixels for a crop of {own}: give the mask of this crop")
        flat = masks.reshape(-1, height, width)
        if self.size != (self.width, self.height):
            flat = np.stack([_resized(mask, (self.width, self.height), smooth=False) for mask in flat])
        whole = np.zeros((len(flat), self.frame_height, self.frame_width), masks.dtype)
        whole[:, *self._seen()] = flat[:, *self._inner()]
        return whole.reshape(*masks.shape[:-2], self.frame_height, self.frame_width)

    def _seen(self) -> tuple[slice, slice]:
        """The rows and columns of the photograph that the crop shows."""
        top, left = self.top + self.pad_top, self.left + self.pad_left
        bottom, right = self.top + self.height - self.pad_bottom, self.left + self.width - self.pad_right
        return slice(top, bottom), slice(left, right)

    def _inner(self) -> tuple[slice, slice]:
        """The rows and columns of the box that show the photograph."""
        return (
            slice(self.pad_top, self.height - self.pad_bottom),
            slice(self.pad_left, self.width - self.pad_right),
        )


def crop_at(
    frame: tuple[int, int],
    centre: tuple[float, float],
    size: tuple[int, int],
    *,
    view: tuple[int, int] | None = None,
    output: tuple[int, int] | None = None,
) -> Crop:
    """The crop of a size about a centre.

    Args:
        frame: (width, height) of the photograph.
        centre: (x, y) of the crop's centre, in pixels from the photograph's upper left corner.
        size: (width, height) of the crop, in pixels of the photograph.
        view: columns (first, end) of the photograph that may be shown; None: all.
        output: (width, height) that the crop is resampled to; None: its own size.
    """
    first, end = view or (0, frame[0])
    left, top = (int(np.floor(middle - length / 2)) for middle, length in zip(centre, size, strict=True))
    width, height = size
    across, down = (new / old for new, old in zip(output or size, size, strict=True))
    return Crop(
        *frame,
        left,
        top,
        width,
        height,
        pad_left=max(0, first - left),
        pad_top=max(0, -top),
        pad_right=max(0, left + width - end),
        pad_bottom=max(0, top + height - frame[1]),
        scale_x=across,
        scale_y=down,
    )


def as_row(crop: Crop) -> dict[str, int | float]:
    """The crop as columns of a manifest."""
    return asdict(crop)


def from_row(row: Mapping[str, Any]) -> Crop:
    """The crop that a row of a manifest holds, as texts or numbers.

    Raises:
        DataError: the row lacks a column or holds something that is no number.
    """
    try:
        numbers = {
            name: float(row[name]) if name.startswith("scale") else int(row[name]) for name in Crop.__dataclass_fields__
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"a row of a manifest without a crop ({error}); write it again with `data prepare`") from error
    return Crop(**numbers)  # type: ignore[arg-type]


def whole_frame(masks: NDArray[np.bool_], row: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Put masks (..., h, w) of a crop into its whole photograph, (..., H, W), as its row in a manifest says.

    Raises:
        DataError: the row holds no crop, or the masks have another size than it.
    """
    return from_row(row).whole(masks)


def _resized(pixels: NDArray[Any], size: tuple[int, int], *, smooth: bool) -> NDArray[Any]:
    """Resample pixels (H, W, ...) to (width, height): areas are averaged when shrinking, cubic when enlarging."""
    as_bytes = pixels.view(np.uint8) if pixels.dtype == bool else pixels
    shrinks = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    kind = (cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC) if smooth else cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(np.ascontiguousarray(as_bytes), size, interpolation=kind)).view(pixels.dtype)
