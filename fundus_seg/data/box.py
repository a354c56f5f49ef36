"""A rectangle of a photograph: what is cut out for a network, and where its masks go back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; it may reach beyond the photograph.

    Attributes:
        x: column of its left edge.
        y: row of its upper edge.
        width: number of columns.
        height: number of rows.
    """

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def around(cls, x: float, y: float, side: float) -> Box:
        """The square with its middle at (x, y), as whole pixels allow."""
        whole = max(1, round(side))
        return cls(round(x - whole / 2), round(y - whole / 2), whole, whole)

    @classmethod
    def whole(cls, frame: tuple[int, ...]) -> Box:
        """All of a photograph (H, W, ...)."""
        return cls(0, 0, frame[1], frame[0])

    def meets(self, frame: tuple[int, ...]) -> bool:
        """Whether it has a pixel of a photograph (H, W, ...)."""
        return self.x < frame[1] and self.y < frame[0] and self.x + self.width > 0 and self.y + self.height > 0

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """The part (height, width, ...) of a photograph (H, W, ...), 0 beyond it; a view of it where all is inside."""
        rows, columns = self._slices(image.shape)
        part = image[rows, columns]
        if part.shape[:2] == (self.height, self.width):
            return part
        above, left = rows.start - self.y, columns.start - self.x
        cut = np.zeros((self.height, self.width, *image.shape[2:]), image.dtype)
        cut[above : above + part.shape[0], left : left + part.shape[1]] = part
        return cut

    def paste(self, part: NDArray[Any], frame: tuple[int, ...]) -> NDArray[Any]:
        """The maps (..., H, W) of a photograph (H, W, ...) of which the rectangle shows `part` (..., height, width).

        They are 0 outside of the rectangle; where that is the whole photograph, they are `part` itself.
        """
        if self == Box.whole(frame):
            return part
        rows, columns = self._slices(frame)
        above, left = rows.start - self.y, columns.start - self.x
        maps = np.zeros((*part.shape[:-2], *frame[:2]), part.dtype)
        inside = part[..., above : above + rows.stop - rows.start, left : left + columns.stop - columns.start]
        maps[..., rows, columns] = inside
        return maps

    def _slices(self, frame: tuple[int, ...]) -> tuple[slice, slice]:
        """The rows and columns of a photograph that lie in the rectangle."""
        ends = ((self.y, self.height, frame[0]), (self.x, self.width, frame[1]))
        rows, columns = (
            slice(min(max(start, 0), most), min(max(start + length, 0), most)) for start, length, most in ends
        )
        return rows, columns
