"""Decode masks: one file with three colours, or two binary files, for disc and cup; merge those of several annotators.

Every rule works on the list of colours in a file and their counts, never pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND, CUP, RIM
from fundus_seg.errors import DataError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
Merge = Literal["majority", "union", "intersection"]
MERGES: tuple[Merge, ...] = get_args(Merge)

TOLERANCE = 8
"""Largest difference of a pixel from its colour, in any channel; smaller where two colours are closer to each other."""
STRAY_SHARE, STRAY_SHARE_LOSSY = 0.005, 0.02
"""Largest share of pixels that may differ by more, without and with lossy compression (JPEG)."""
MOST_CONTACT = 0.1
"""For a coding to be recognised, the cup's border on the background must be shorter than this share of the rim's."""


@dataclass(frozen=True)
class Coding:
    """The colours of a mask's three areas, in the order of the labels 0, 1 and 2.

    A pixel of another colour belongs to the area with the nearest colour, unless there are `bounds`.

    Attributes:
        bounds: the highest grey of the cup and of the rim, for masks in which these limits decide.
    """

    background: Colour
    rim: Colour
    cup: Colour
    bounds: tuple[int, int] | None = None

    @property
    def colours(self) -> tuple[Colour, Colour, Colour]:
        """The colours of background, rim and cup."""
        return self.background, self.rim, self.cup

    def __str__(self) -> str:
        colours = {"cup": self.cup, "rim": self.rim, "background": self.background}
        return ", ".join(f"{name} {_written(colour)}" for name, colour in colours.items())


def grey(value: int) -> Colour:
    """The colour of a grey value, 0 to 255."""
    return value, value, value


DOFE = Coding(background=grey(BACKGROUND), rim=grey(RIM), cup=grey(CUP), bounds=(50, 200))
"""The coding of the paper's data: grey <= 50 cup, 51-200 rim, > 200 background."""

LABELS = Coding(background=grey(0), rim=grey(1), cup=grey(2))
"""The coding of label files: nnU-Net's, and the NIfTI files that fundus-seg writes."""

CODINGS = {"dofe": DOFE, "labels": LABELS}
"""Codings by name."""


@dataclass(frozen=True)
class Annotation:
    """How the mask files of a case become its two masks.

    Attributes:
        coding: the colours in one file; None: there are two binary files, disc and cup.
        merge: how the masks of several annotators become one.
    """

    coding: Coding | None
    merge: Merge = "majority"


BY_DOFE = Annotation(DOFE)
"""The annotation of one file in the coding `dofe`."""


def decode(pixels: NDArray[np.uint8], coding: Coding, *, lossy: bool) -> NDArray[np.bool_]:
    """Decode pixels (H, W, 3) uint8 to masks (2, H, W), channels ("disc", "cup").

    Raises:
        DataError: too many pixels have colours that are not in the coding. The error names no file.
    """
    colours = coding.colours
    present, counts, index = _colours_in(pixels)
    if all(_is_grey(colour) for colour in colours) and not all(_is_grey(colour) for colour in present.tolist()):
        raise DataError(f"a coloured mask, but its coding wants greys: {coding}")
    labels, stray, allowed = _nearest(present, colours, lossy)
    if coding.bounds is not None:
        labels = 2 - np.searchsorted(coding.bounds, present[:, 0])
    _refuse_stray(present, counts, stray, allowed, f"of the coding ({coding})")
    of_pixel = labels[index]
    return np.stack([of_pixel >= 1, of_pixel >= 2])


def decode_binary(pixels: NDArray[np.uint8], *, lossy: bool) -> NDArray[np.bool_]:
    """Decode the pixels (H, W, 3) uint8 of a binary file to a mask (H, W).

    Black is outside, the brightest colour of the file is inside: 0/1 and 0/255 give the same mask, and a file that is
    all black gives an empty mask.

    Raises:
        DataError: too many pixels have a third colour. The error names no file.
    """
    present, counts, index = _colours_in(pixels)
    brightest = present[present.sum(axis=1).argmax()]
    if not brightest.any():
        return np.zeros(pixels.shape[:2], dtype=bool)
    red, green, blue = brightest.tolist()
    labels, stray, allowed = _nearest(present, (grey(0), (red, green, blue)), lossy)
    _refuse_stray(present, counts, stray, allowed, f"of a binary mask (0 and {_written((red, green, blue))})")
    return np.asarray(labels[index] == 1)


def recognised(pixels: NDArray[np.uint8]) -> Coding | None:
    """Recognise the coding of a mask (H, W, 3) uint8 by anatomy; None if it shows no cup that its rim surrounds.

    The background is the commonest colour in the corners of the frame. Of the two other commonest colours, the rim is
    the one with the longer border on the background, counted in pairs of neighbouring pixels. If the border of the
    cup on the background is too long as well (`MOST_CONTACT`), neither colour surrounds the other: a predicted cup may
    leave its disc.
    """
    present, counts, index = _colours_in(pixels)
    if len(present) < 3:
        return None
    background = np.bincount(corners(index), minlength=len(present)).argmax()
    others = [colour for colour in np.argsort(-counts) if colour != background][:2]
    contacts = {colour: _contact(index == background, index == colour) for colour in others}
    cup, rim = sorted(others, key=contacts.__getitem__)
    if contacts[cup] >= MOST_CONTACT * contacts[rim]:
        return None
    background_colour, rim_colour, cup_colour = present[[background, rim, cup]].tolist()
    return with_bounds(Coding(tuple(background_colour), tuple(rim_colour), tuple(cup_colour)))


def with_bounds(coding: Coding) -> Coding:
    """`DOFE`, with its bounds, for a coding of the same three colours; any other coding as it is."""
    return DOFE if coding == replace(DOFE, bounds=None) else coding


def corners(pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels (n,) in the four corners of a frame (H, W), H/16 x W/16 each, which even a wide disc leaves free."""
    height, width = (max(1, length // 16) for length in pixels.shape)
    ends = (pixels[rows, columns] for rows in _ends(height) for columns in _ends(width))
    return np.concatenate([end.ravel() for end in ends])


def _ends(length: int) -> tuple[slice, slice]:
    return slice(length), slice(-length, None)


def merged(masks: Sequence[NDArray[np.bool_]], merge: Merge) -> NDArray[np.bool_]:
    """Merge several annotators' masks of equal shape: keep the pixels of more than half of them, of any, or of all."""
    needed = {"majority": len(masks) // 2 + 1, "union": 1, "intersection": len(masks)}
    return np.asarray(np.sum(masks, axis=0) >= needed[merge])


def _colours_in(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The n colours of an image (n, 3), the number of pixels of each (n,), and each pixel's index into them (H, W)."""
    first = pixels[..., 0]
    if (pixels == first[..., None]).all():  # grey, as nearly all masks are: nothing to sort
        counts = np.bincount(first.ravel(), minlength=256)
        greys = np.flatnonzero(counts)
        return np.stack([greys] * 3, axis=1), counts[greys], np.searchsorted(greys, np.arange(256))[first]
    packed = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    codes, index, counts = np.unique(packed, return_inverse=True, return_counts=True)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1), counts, index.reshape(packed.shape)


def _contact(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """The number of pairs of neighbours, one above or beside the other, with a pixel of each of two masks (H, W)."""
    pairs = ((one[1:], other[:-1]), (one[:-1], other[1:]), (one[:, 1:], other[:, :-1]), (one[:, :-1], other[:, 1:]))
    return sum(int(np.count_nonzero(here & there)) for here, there in pairs)


def _nearest(
    present: NDArray[np.int64], colours: Sequence[Colour], lossy: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_], float]:
    """Assign each colour in a file to the nearest colour of a coding.

    Args:
        present: the colours in the file, (n, 3).
        colours: the colours of the coding.
        lossy: whether the file was compressed with loss.

    Returns:
        The index of the nearest of `colours` (n,); whether the difference is beyond the tolerance (n,); the share of
        pixels that may be beyond it. That share is 0 for codings such as 0, 1, 2, with no room for a tolerance.
    """
    distances = np.abs(present[:, None] - np.array(colours)).max(axis=2)
    closest_pair = min(np.abs(np.subtract(one, other)).max() for one, other in combinations(colours, 2))
    tolerance = min(TOLERANCE, (closest_pair - 1) // 2)
    allowed = (STRAY_SHARE_LOSSY if lossy else STRAY_SHARE) if tolerance else 0
    return distances.argmin(axis=1), distances.min(axis=1) > tolerance, allowed


def _refuse_stray(
    present: NDArray[np.int64], counts: NDArray[np.int64], stray: NDArray[np.bool_], allowed: float, of_what: str
) -> None:
    """Raise a DataError if the colours marked as `stray` cover more than the `allowed` share of the pixels."""
    share = counts[stray].sum() / counts.sum()
    if share > allowed:
        commonest = present[stray][np.argsort(-counts[stray])[:3]].tolist()
        kind = "greys" if all(_is_grey(colour) for colour in commonest) else "colours"
        odd = ", ".join(_written(colour) for colour in commonest)
        raise DataError(
            f"{kind} [{odd}] on {100 * share:.1f} % of its pixels are not {of_what}: export the mask without smoothing"
        )


def _is_grey(colour: Sequence[int]) -> bool:
    return len(set(colour)) == 1


def _written(colour: Sequence[int]) -> str:
    """`128` for a grey, `#ff0000` for another colour."""
    return str(colour[0]) if _is_grey(colour) else "#" + "".join(f"{channel:02x}" for channel in colour)
