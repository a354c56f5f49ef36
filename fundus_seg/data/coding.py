"""Decode masks: one file with three colours, or two binary files, for disc and cup; merge those of several annotators.

Grey maps, such as the share of readers who drew each pixel, are cut at thresholds that the user gives.

Every rule works on the list of colours in a file and their counts, never pixel by pixel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND, CUP, RIM, Unannotated
from fundus_seg.errors import SharedFaultError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
Merge = Literal["majority", "union", "intersection"]
MERGES: tuple[Merge, ...] = get_args(Merge)

TOLERANCE = 8
"""Largest difference of a pixel from its colour, in any channel; smaller where two colours are closer to each other."""
STRAY_SHARE, STRAY_SHARE_LOSSY = 0.005, 0.02
"""Largest share of pixels that may differ by more, without and with lossy compression (JPEG)."""


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
        return ", ".join(f"{name} {written(colour)}" for name, colour in colours.items())


@dataclass(frozen=True)
class Thresholds:
    """The greys of disc and cup in grey maps: `>=128` for greys of 128 and more, `<=127` for those of 127 and less.

    In one file, the disc includes the cup's greys; two binary files have a threshold each.
    """

    disc: str
    cup: str

    def __str__(self) -> str:
        return f"disc {self.disc}, cup {self.cup}"


def threshold(text: str) -> str:
    """A threshold such as `>= 128`, `>127`, `<=127` or `<128` in the form that `Thresholds` holds.

    Raises:
        ValueError: the text is no comparison with a grey of 0 to 255.
    """
    match = _THRESHOLD.fullmatch(text.strip())
    if match is None or int(match["grey"]) > 255:
        raise ValueError(text)
    sign, value = match["sign"], int(match["grey"])
    strict = 0 if sign.endswith("=") else 1
    return f">={value + strict}" if sign.startswith(">") else f"<={value - strict}"


_THRESHOLD = re.compile(r"(?P<sign>[<>]=?)\s*(?P<grey>\d{1,3})", re.ASCII)


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
        coding: the colours in one file; None: there are two binary files, disc and cup; thresholds for either.
        merge: how the masks of several annotators become one.
        unannotated_cup: which cups are not annotated, and so no truth: neither trained nor scored. With `missing`, one
            file is the disc alone.
    """

    coding: Coding | Thresholds | None
    merge: Merge = "majority"
    unannotated_cup: Unannotated = "never"

    def disc_alone(self, files: Sequence[Path]) -> bool:
        """Whether these mask files of a case are the disc's binary file, without one of its cup."""
        return self.unannotated_cup == "missing" and len(files) == 1

    def recorded(self) -> dict[str, Any]:
        """The annotation as plain values, for digests: without what came later, where it is as it was before."""
        later = {"unannotated_cup"} if self.unannotated_cup == "never" else set()
        return {name: value for name, value in asdict(self).items() if name not in later}


BY_DOFE = Annotation(DOFE)
"""The annotation of one file in the coding `dofe`."""


def decode(pixels: NDArray[np.uint8], coding: Coding | Thresholds, *, lossy: bool) -> NDArray[np.bool_]:
    """Decode pixels (H, W, 3) uint8 to masks (2, H, W), channels ("disc", "cup").

    Raises:
        SharedFaultError: too many pixels have colours that are not in the coding. The error names no file.
    """
    if isinstance(coding, Thresholds):
        cup = _beyond(pixels, coding.cup)
        return np.stack([_beyond(pixels, coding.disc) | cup, cup])
    colours = coding.colours
    present, counts, index = colours_in(pixels)
    if all(_is_grey(colour) for colour in colours) and not all(_is_grey(colour) for colour in present.tolist()):
        raise SharedFaultError(f"a coloured mask, but its coding wants greys: {coding}")
    labels, stray, allowed = _nearest(present, colours, lossy)
    if coding.bounds is not None:
        labels = 2 - np.searchsorted(coding.bounds, present[:, 0])
    _refuse_stray(present, counts, stray, allowed, f"of the coding ({coding})", as_thresholds(coding))
    of_pixel = labels.astype(np.uint8)[index]
    return np.stack([of_pixel >= 1, of_pixel >= 2])


def decode_binary(pixels: NDArray[np.uint8], *, lossy: bool, inside: str | None = None) -> NDArray[np.bool_]:
    """Decode the pixels (H, W, 3) uint8 of a binary file to a mask (H, W).

    Black is outside, the brightest colour of the file is inside: 0/1 and 0/255 give the same mask, and a file that is
    all black gives an empty mask.

    Args:
        pixels: the file's.
        lossy: whether the file was compressed with loss.
        inside: a threshold that says which greys are inside, whatever greys the file has.

    Raises:
        SharedFaultError: too many pixels have a third colour. The error names no file.
    """
    if inside is not None:
        return _beyond(pixels, inside)
    present, counts, index = colours_in(pixels)
    brightest = present[present.sum(axis=1).argmax()]
    if not brightest.any():
        return np.zeros(pixels.shape[:2], dtype=bool)
    red, green, blue = brightest.tolist()
    labels, stray, allowed = _nearest(present, (grey(0), (red, green, blue)), lossy)
    binary = f"of a binary mask (0 and {written((red, green, blue))})"
    _refuse_stray(present, counts, stray, allowed, binary, '">=128"')
    return np.asarray(labels[index] == 1)


def _beyond(pixels: NDArray[np.uint8], limit: str) -> NDArray[np.bool_]:
    """The pixels (H, W) whose grey is within a threshold.

    Raises:
        SharedFaultError: the file is coloured.
    """
    first = pixels[..., 0]
    if not (pixels == first[..., None]).all():
        raise SharedFaultError(f"a coloured mask, but its coding wants greys: {limit}")
    return within(first, limit)


def within(greys: NDArray[np.uint8], limit: str) -> NDArray[np.bool_]:
    """The pixels (H, W) whose grey is within a threshold, as `Thresholds` holds it."""
    value = int(limit[2:])
    return greys >= value if limit.startswith(">") else greys <= value


def turned_threshold(limit: str, brightest: int) -> str:
    """The threshold of the same areas in a map whose greys are counted down from the brightest one."""
    value = brightest - int(limit[2:])
    if value < 0:
        return "<=-1"
    return f"<={value}" if limit.startswith(">") else f">={value}"


def with_bounds(coding: Coding) -> Coding:
    """`DOFE`, with its bounds, for a coding of the same three colours; any other coding as it is."""
    return DOFE if coding == replace(DOFE, bounds=None) else coding


def merged(masks: Sequence[NDArray[np.bool_]], merge: Merge) -> NDArray[np.bool_]:
    """Merge several annotators' masks of equal shape: keep the pixels of more than half of them, of any, or of all."""
    needed = {"majority": len(masks) // 2 + 1, "union": 1, "intersection": len(masks)}
    return np.asarray(np.sum(masks, axis=0) >= needed[merge])


def colours_in(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """The n colours of an image (n, 3), the number of pixels of each (n,), and each pixel's index into them (H, W)."""
    first = pixels[..., 0]
    if (pixels == first[..., None]).all():  # grey, as nearly all masks are: nothing to sort
        counts = np.bincount(first.ravel(), minlength=256)
        greys = np.flatnonzero(counts)
        positions = np.searchsorted(greys, np.arange(256)).astype(np.uint8)  # small: the memory of large masks counts
        return np.stack([greys] * 3, axis=1), counts[greys], positions[first]
    packed = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    codes, index, counts = np.unique(packed, return_inverse=True, return_counts=True)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1), counts, index.reshape(packed.shape)


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


def as_thresholds(coding: Coding) -> str:
    """Thresholds halfway between the greys of a coding, as YAML; empty where its greys do not rise or fall."""
    background, rim, cup = (colour[0] for colour in coding.colours)
    if not all(map(_is_grey, coding.colours)) or not (background < rim < cup or background > rim > cup):
        return ""
    if background > rim:
        inner, outer = coding.bounds or ((cup + rim) // 2, (rim + background) // 2)
        return f'{{disc: "<={outer}", cup: "<={inner}"}}'
    return f'{{disc: ">={(background + rim + 1) // 2}", cup: ">={(rim + cup + 1) // 2}"}}'


def _refuse_stray(
    present: NDArray[np.int64],
    counts: NDArray[np.int64],
    stray: NDArray[np.bool_],
    allowed: float,
    of_what: str,
    thresholds: str,
) -> None:
    """Raise a SharedFaultError if the colours marked as `stray` cover more than the `allowed` share of the pixels."""
    share = counts[stray].sum() / counts.sum()
    if share > allowed:
        commonest = present[stray][np.argsort(-counts[stray])[:3]].tolist()
        kind = "greys" if all(_is_grey(colour) for colour in commonest) else "colours"
        odd = ", ".join(written(colour) for colour in commonest)
        raise SharedFaultError(
            f"{kind} [{odd}] on {100 * share:.1f} % of its pixels are not {of_what}: export the mask without smoothing"
            + (f", or give thresholds as the coding: {thresholds}" if kind == "greys" and thresholds else "")
        )


def _is_grey(colour: Sequence[int]) -> bool:
    return len(set(colour)) == 1


def written(colour: Sequence[int]) -> str:
    """A colour in words: `128` for a grey, `#ff0000` for another colour."""
    return str(colour[0]) if _is_grey(colour) else "#" + "".join(f"{channel:02x}" for channel in colour)
