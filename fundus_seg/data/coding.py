"""How mask files hold disc and cup: three colours in one file, or two binary files; and several annotators as one.

Every rule works on the colours that a file holds and their counts, never pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fundus_seg.errors import DataError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
Merge = Literal["majority", "union", "intersection"]
MERGES: tuple[Merge, ...] = get_args(Merge)

TOLERANCE = 8
"""How far, in its farthest channel, a pixel may be from its colour; less where two colours are closer than that."""
STRAY_SHARE, STRAY_SHARE_LOSSY = 0.005, 0.02
"""The share of pixels that may be farther; lossy: after JPEG."""
MOST_CONTACT = 0.1
"""How much of the rim's border on the background its cup may have as well, in a mask that its coding is read from."""


@dataclass(frozen=True)
class Coding:
    """The colours of a mask's three areas, in the order of the labels 0, 1 and 2.

    A stray pixel takes the nearest colour; with `bounds`, the highest greys of cup and rim decide instead.
    """

    background: Colour
    rim: Colour
    cup: Colour
    bounds: tuple[int, int] | None = None

    @property
    def colours(self) -> tuple[Colour, Colour, Colour]:
        """Of background, rim and cup."""
        return self.background, self.rim, self.cup

    def __str__(self) -> str:
        colours = {"cup": self.cup, "rim": self.rim, "background": self.background}
        return ", ".join(f"{name} {_written(colour)}" for name, colour in colours.items())


def grey(value: int) -> Colour:
    """A grey as a colour."""
    return value, value, value


DOFE = Coding(background=grey(255), rim=grey(128), cup=grey(0), bounds=(50, 200))
"""The coding of the paper's data: grey <= 50 cup, 51-200 rim, > 200 background."""

LABELS = Coding(background=grey(0), rim=grey(1), cup=grey(2))
"""The coding of label files, as nnU-Net writes them and our NIfTI are."""

CODINGS = {"dofe": DOFE, "labels": LABELS}
"""Those that have a name."""


@dataclass(frozen=True)
class Annotation:
    """How the mask files of a case become its two masks. `coding` None: two binary files, disc and cup."""

    coding: Coding | None
    merge: Merge = "majority"


BY_DOFE = Annotation(DOFE)
"""One file in the dofe coding."""


def decode(pixels: NDArray[np.uint8], coding: Coding, *, lossy: bool) -> NDArray[np.bool_]:
    """Pixels (H, W, 3) as masks (2, H, W), channels ("disc", "cup").

    Raises:
        DataError: too many pixels of colours that the coding does not know; the text names no file.
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
    """Pixels (H, W, 3) of a binary file as a mask (H, W): black is outside, the file's brightest colour inside.

    So 0/1 and 0/255 are read alike, and a file of black alone is an empty mask.

    Raises:
        DataError: too many pixels of a third colour; the text names no file.
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
    """The coding of a mask (H, W, 3) by what the eye is like: None if it does not show a cup surrounded by its rim.

    Background is what most of the frame's corners show. Of the two other commonest colours, rim is the one that borders
    on the background along more pairs of neighbouring pixels; if the cup does along too many, neither surrounds the
    other, as where a predicted cup leaves its disc.
    """
    present, counts, index = _colours_in(pixels)
    if len(present) < len(("background", "rim", "cup")):
        return None
    background = np.bincount(corners(index), minlength=len(present)).argmax()
    others = [colour for colour in np.argsort(-counts) if colour != background][:2]
    contacts = {colour: _contact(index == background, index == colour) for colour in others}
    cup, rim = sorted(others, key=contacts.__getitem__)
    if contacts[cup] >= MOST_CONTACT * contacts[rim]:
        return None
    red_green_blue = (tuple(present[colour].tolist()) for colour in (background, rim, cup))
    coding = Coding(*red_green_blue)
    return DOFE if coding == replace(DOFE, bounds=None) else coding


def corners(pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels (n,) of the four corners of a frame (H, W), a 16th of it high and wide: outside the widest disc."""
    height, width = (max(1, length // 16) for length in pixels.shape)
    ends = (pixels[rows, columns] for rows in _ends(height) for columns in _ends(width))
    return np.concatenate([end.ravel() for end in ends])


def _ends(length: int) -> tuple[slice, slice]:
    return slice(length), slice(-length, None)


def merged(masks: Sequence[NDArray[np.bool_]], merge: Merge) -> NDArray[np.bool_]:
    """One mask of several annotators' masks of equal shape: pixels of more than half of them, of any, or of all."""
    needed = {"majority": len(masks) // 2 + 1, "union": 1, "intersection": len(masks)}
    return np.asarray(np.sum(masks, axis=0) >= needed[merge])


def _colours_in(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The n colours of an image (n, 3), how many pixels have each (n,), and which one each pixel has (H, W)."""
    first = pixels[..., 0]
    if (pixels == first[..., None]).all():  # grey, as nearly all masks are: nothing to sort
        counts = np.bincount(first.ravel(), minlength=256)
        greys = np.flatnonzero(counts)
        return np.stack([greys] * 3, axis=1), counts[greys], np.searchsorted(greys, np.arange(256))[first]
    packed = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    codes, index, counts = np.unique(packed, return_inverse=True, return_counts=True)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1), counts, index.reshape(packed.shape)


def _contact(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """How many pixels of `one` have one of `other` above, below, left or right of them, each pair counted."""
    pairs = ((one[1:], other[:-1]), (one[:-1], other[1:]), (one[:, 1:], other[:, :-1]), (one[:, :-1], other[:, 1:]))
    return sum(int(np.count_nonzero(here & there)) for here, there in pairs)


def _nearest(
    present: NDArray[np.int64], colours: Sequence[Colour], lossy: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_], float]:
    """For each present colour (n, 3), the number of the nearest of `colours`, and whether it is out of tolerance.

    And the share of pixels that may be: none of labels, as 0, 1 and 2, between which no smoothing could put another.
    """
    distances = np.abs(present[:, None] - np.array(colours)).max(axis=2)
    closest_pair = min(np.abs(np.subtract(one, other)).max() for one, other in combinations(colours, 2))
    tolerance = min(TOLERANCE, (closest_pair - 1) // 2)
    allowed = (STRAY_SHARE_LOSSY if lossy else STRAY_SHARE) if tolerance else 0
    return distances.argmin(axis=1), distances.min(axis=1) > tolerance, allowed


def _refuse_stray(
    present: NDArray[np.int64], counts: NDArray[np.int64], stray: NDArray[np.bool_], allowed: float, of_what: str
) -> None:
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
