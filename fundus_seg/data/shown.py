"""What a mask shows, told by anatomy: the cup is what its rim surrounds, and the background lies in the corners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import TOLERANCE, Coding, Colour, colours_in, with_bounds, written

MOST_CONTACT = 0.1
"""For a coding to be recognised, the cup's border on the background must be shorter than this share of the rim's."""

_MOST_AREAS_TRIED = 12
_USUAL = (0, 64, 128, 192, 255)


@dataclass(frozen=True)
class OneStructure:
    """What a mask shows that has two colours alone: one structure, and what lies outside it."""

    inside: Colour
    outside: Colour

    def __str__(self) -> str:
        return f"{written(self.inside)} inside {written(self.outside)}, so one structure alone"


def recognised(pixels: NDArray[np.uint8]) -> Coding | None:
    """Recognise the coding of a mask (H, W, 3) uint8 by anatomy; None if it shows no cup that its rim surrounds."""
    seen = shown(pixels)
    return seen if isinstance(seen, Coding) else None


def shown(pixels: NDArray[np.uint8]) -> Coding | OneStructure | None:
    """What a mask (H, W, 3) uint8 shows, whatever its coding is said to be; None if that is not clear.

    The background is the commonest colour in the corners of the frame. Of the two other commonest colours, the rim is
    the one with the longer border on the background, counted in pairs of neighbouring pixels. If the border of the
    cup on the background is too long as well (`MOST_CONTACT`), neither colour surrounds the other: a predicted cup may
    leave its disc. In a mask with more than three colours, which was smoothed or compressed, an area must have a core.
    """
    present, counts, index = colours_in(pixels)
    background = int(np.bincount(corners(index).ravel(), minlength=len(present)).argmax())
    others = [int(colour) for colour in np.argsort(-counts, kind="stable") if colour != background]
    if len(present) > 3:
        others = _areas(present, index, background, others)
        labels = np.abs(present[:, None] - present[[background, *others[:2]]]).max(axis=2).argmin(axis=1)[index]
    else:
        labels = np.array([0 if colour == background else 1 + others.index(colour) for colour in range(len(present))])[
            index
        ]
    if not others:
        return None
    colours: list[Colour] = [(red, green, blue) for red, green, blue in present[[background, *others[:2]]].tolist()]
    if len(others) == 1:
        return OneStructure(inside=colours[1], outside=colours[0])
    outside, *areas = ((labels == area) if len(present) == 3 else _without_specks(labels == area) for area in range(3))
    contacts = {area: contact(outside, areas[area - 1]) for area in (1, 2)}
    cup, rim = sorted(contacts, key=contacts.__getitem__)
    if contacts[cup] >= MOST_CONTACT * contacts[rim]:
        return None
    if len(present) > 3:
        colours = _as_meant(colours)
    return with_bounds(Coding(colours[0], colours[rim], colours[cup]))


def _as_meant(colours: list[Colour]) -> list[Colour]:
    """Colours that compression has changed a little as they were: in each channel the usual value beside them."""

    def meant(value: int) -> int:
        nearest = min(_USUAL, key=lambda usual: abs(usual - value))
        return nearest if abs(nearest - value) <= TOLERANCE else value

    found: list[Colour] = [(meant(red), meant(green), meant(blue)) for red, green, blue in colours]
    return found if len(set(found)) == len(colours) else colours


def _areas(present: NDArray[np.int64], index: NDArray[Any], background: int, others: Sequence[int]) -> list[int]:
    """Of the other colours, the commonest two that differ from each other and the background and have a core.

    A core is a square of 5x5 pixels of nearly that colour: the borders that smoothing leaves have none.
    """
    chosen = [background]
    tried = 0
    for colour in others:
        if np.abs(present[chosen] - present[colour]).max(axis=1).min() <= TOLERANCE:
            continue
        near = (np.abs(present - present[colour]).max(axis=1) <= TOLERANCE)[index]
        if cv2.erode(near.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0).any():
            chosen.append(colour)
        tried += 1
        if len(chosen) == 3 or tried == _MOST_AREAS_TRIED:
            break
    return chosen[1:]


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (H, W) without parts that are narrower than 3 pixels, unless these are most of it.

    Between two smoothed colours lie others, of which some look like a third area.
    """
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    return opened if 2 * opened.sum() > mask.sum() else mask


def corners(pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels (n,) in the four corners of a frame (H, W), H/16 x W/16 each, which even a wide disc leaves free."""
    height, width = (max(1, length // 16) for length in pixels.shape)
    ends = (pixels[rows, columns] for rows in _ends(height) for columns in _ends(width))
    return np.concatenate([end.ravel() for end in ends])


def _ends(length: int) -> tuple[slice, slice]:
    return slice(length), slice(-length, None)


def contact(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """The number of pairs of neighbours, one above or beside the other, with a pixel of each of two masks (H, W)."""
    pairs = ((one[1:], other[:-1]), (one[:-1], other[1:]), (one[:, 1:], other[:, :-1]), (one[:, :-1], other[:, 1:]))
    return sum(int(np.count_nonzero(here & there)) for here, there in pairs)
