"""The square about the disc that pictures show enlarged, and what puts pictures beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.viz.strips import PAPER

_ROOM = 1.4
"""Side of the square, as a multiple of the longer side of what it is about."""
_GAP = 6
"""Pixels between two pictures."""


@dataclass(frozen=True)
class Window:
    """A square of a photograph, in pixels, that lies in its frame.

    Attributes:
        top: its first row.
        left: its first column.
        side: number of its rows and columns.
    """

    top: int
    left: int
    side: int

    def cut(self, masks: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """What it shows of masks (2, H, W), if there are any."""
        return None if masks is None else masks[:, self.top : self.top + self.side, self.left : self.left + self.side]

    def cut_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What it shows of an image (H, W, 3)."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]

    def mark(self, picture: NDArray[np.uint8], scale: float) -> None:
        """Draw it, in place, on a picture (H', W', 3) of the whole photograph that is enlarged by `scale`."""
        first = (round(scale * self.left), round(scale * self.top))
        last = (round(scale * (self.left + self.side)) - 1, round(scale * (self.top + self.side)) - 1)
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.rectangle(picture, first, last, colour, thickness)


def window_around(masks: Sequence[NDArray[np.bool_]]) -> Window | None:
    """The window about all that some masks (2, H, W) of one photograph hold; None if they hold nothing.

    It is as large as the photograph allows, if that is less than there should be around them.
    """
    held = np.any([mask.any(axis=0) for mask in masks], axis=0) if masks else np.zeros((1, 1), bool)
    if not held.any():
        return None
    height, width = held.shape
    left, top, columns, rows = cv2.boundingRect(held.view(np.uint8))
    side = min(height, width, round(_ROOM * max(rows, columns)) + 2)
    top = min(max(top + (rows - side) // 2, 0), height - side)
    left = min(max(left + (columns - side) // 2, 0), width - side)
    return Window(top, left, side)


def beside(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) of any sizes in a row, the lower ones in the middle of its height."""
    height = max(len(picture) for picture in pictures)
    row: list[NDArray[np.uint8]] = []
    for picture in pictures:
        above = (height - len(picture)) // 2
        right = _GAP if len(row) + 1 < len(pictures) else 0
        row.append(padded(picture, above, height - len(picture) - above, 0, right))
    return np.concatenate(row, axis=1)


def padded(picture: NDArray[np.uint8], above: int, below: int, left: int, right: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) with so many pixels of the strips' ground around it."""
    return np.pad(picture, ((above, below), (left, right), (0, 0)), constant_values=PAPER[0])
