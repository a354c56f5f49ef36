"""What masks show against the coding that they are read in, and what would mend it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import Annotation, Coding, Thresholds, turned_threshold, within
from fundus_seg.data.io import read_binary_mask, read_drawing
from fundus_seg.data.recognise import MOST_MASKS, coding_text, coding_to_write
from fundus_seg.data.shown import MOST_CONTACT, OneStructure, contact, corners, shown
from fundus_seg.errors import DataError, Problem


def looks(masks: NDArray[np.bool_]) -> Literal["sound", "doubtful", "no disc", "no cup"]:
    """How masks (2, H, W) look, as decoded: doubtful if their coding may be another one."""
    cup = masks[1]
    disc = masks[0] | cup
    if not disc.any():
        return "no disc"
    if corners(disc).mean() > 0.5:
        return "doubtful"
    rim = disc & ~cup
    if not rim.any():
        return "doubtful"
    if not cup.any():
        return "no cup"
    return "doubtful" if contact(~disc, rim) < MOST_CONTACT * contact(~disc, cup) else "sound"


@dataclass(frozen=True)
class Shows:
    """What a mask shows against its coding, and what would mend it.

    Attributes:
        text: what it shows, in words.
        coding: the coding to give, as YAML; may be empty.
        seen: the coding that the mask shows; what to give is then found from all masks that show it.
        places: what to change about the places of the masks, a key of `_PLACES`; may be empty.
    """

    text: str
    coding: str = ""
    places: str = ""
    seen: Coding | None = None


_PLACES = {
    "exchange": (
        'exchange the two patterns in "masks: {{disc: ..., cup: ...}}"',
        "give the place of the discs first, then that of the cups",
    ),
    "two files": (
        'write `masks: {{disc: "DISCS/{{name}}.png", cup: "CUPS/{{name}}.png"}}`, or the disc alone if no cup is '
        "drawn, for this domain in {file}",
        "give two places of binary masks, first the discs, then the cups",
    ),
    "one file": (
        'write `coding: {coding}, with one pattern in "masks"` for this domain in {file}',
        "give one place of masks, and {option} '{coding}'",
    ),
    "": ("write `coding: {coding}` for this domain in {file}", "give {option} '{coding}'"),
}
"""What to write in a YAML file, and what to give on the command line."""


def contradictions(
    doubtful: Sequence[tuple[Path, ...]], annotation: Annotation, *, lacking: bool
) -> Iterator[tuple[tuple[Path, ...], Shows]]:
    """Read some of the doubtful masks again: those that show something else than their coding says.

    Args:
        doubtful: the files of these masks.
        annotation: how they are read.
        lacking: whether no mask has disc and cup. One structure alone is no evidence then.
    """
    for files in doubtful[:MOST_MASKS]:
        with contextlib.suppress(DataError):  # a file that cannot be read is reported as such
            if isinstance(annotation.coding, Thresholds):
                what = _thresholded(files, annotation.coding, lacking)
            else:
                what = _double(files) if annotation.coding is None else _single(files[0], annotation, lacking)
            if what is not None:
                yield files, what


def _single(path: Path, annotation: Annotation, lacking: bool) -> Shows | None:
    """What one coded file shows, if that is not its coding."""
    seen = shown(read_drawing(path))
    if isinstance(seen, OneStructure) and not lacking:
        return Shows(f"shows {seen}", places="two files")
    return Shows(f"shows {seen}", seen=seen) if isinstance(seen, Coding) and seen != annotation.coding else None


def _double(files: tuple[Path, ...]) -> Shows | None:
    """What two binary files show, or that of the disc alone, if these are not a disc and a cup, white on black."""
    seen = [shown(read_drawing(path)) for path in files]
    for each in seen:
        if isinstance(each, Coding):
            return Shows(f"shows {each} in one file", places="one file", seen=each)
    kinds = [each for each in seen if isinstance(each, OneStructure)]
    brightness = [(sum(each.inside), sum(each.outside)) for each in kinds]
    if any(inside < outside for inside, outside in brightness):
        at = next(number for number, (inside, outside) in enumerate(brightness) if inside < outside)
        limit = -(-(brightness[at][0] + brightness[at][1]) // 6)
        return Shows(f"shows {kinds[at]}: black on white", f'"<{limit}"')
    disc, cup = (read_binary_mask(path) for path in (files[0], files[-1]))
    if disc.shape == cup.shape and disc.any() and not (disc & ~cup).any() and (cup & ~disc).any():
        return Shows("shows a disc inside its cup", places="exchange")
    return None


def _thresholded(files: tuple[Path, ...], coding: Thresholds, lacking: bool) -> Shows | None:
    """What grey maps show at other thresholds, if they show no disc around its cup at the given ones.

    Disc and cup may be exchanged, and either threshold may look in the wrong direction: of the seven other readings,
    the first is taken that shows sound anatomy.
    """
    pixels = [read_drawing(path) for path in files]
    disc, cup = pixels[0][..., 0], pixels[-1][..., 0]
    if disc.shape != cup.shape:
        return None
    given = [(disc, coding.disc), (cup, coding.cup)]
    filled = bool(corners(within(*given[0])).mean() > 0.5)
    for exchanged, turn_disc, turn_cup in sorted(product((False, True), repeat=3), key=sum)[1:]:
        places = given[::-1] if exchanged else given
        limits = [
            turned_threshold(limit, int(plane.max())) if turned else limit
            for (plane, limit), turned in zip(places, (turn_disc, turn_cup), strict=True)
        ]
        masks = np.stack([within(plane, limit) for (plane, _), limit in zip(places, limits, strict=True)])
        if _is_sound(masks, without_cup=filled):
            if exchanged and len(files) == 2:
                return Shows("shows a disc inside its cup", places="exchange")
            other = Thresholds(*limits)
            text = f'"{other.disc}"' if other.disc == other.cup else f'{{disc: "{other.disc}", cup: "{other.cup}"}}'
            return Shows(f"shows a cup inside its disc at {other}", text)
    return _single(files[0], Annotation(coding), lacking) if len(files) == 1 else None


def _is_sound(masks: NDArray[np.bool_], *, without_cup: bool) -> bool:
    """Whether masks (2, H, W) show a cup inside its disc, or a disc that lies free, if it may be `without_cup`."""
    disc, cup = masks
    if (cup & ~disc).any():
        return False
    if cup.any():
        return looks(masks) == "sound"
    border = np.concatenate([disc[0], disc[-1], disc[:, 0], disc[:, -1]])
    return without_cup and bool(disc.any() and not border.any())


def pattern(
    group: str,
    annotation: Annotation,
    what: Shows,
    paths: Sequence[Path],
    count: int,
    total: int,
    option: str | None,
) -> Problem:
    """The problem of a group: what `count` of its `total` masks show, and what to write."""
    if annotation.coding is None:
        given = "two binary files, white on black, disc then cup"
    else:
        given = f"the coding ({annotation.coding})"
    shows = what.text.replace("shows", "show", 1)
    first = paths[0]
    text = f"{count} of {total} masks of {group} {shows}, against {given}; first {first.name}"
    if count < total:
        return Problem(f"{text}; export all of them alike", first.parent)
    in_yaml, as_option = _PLACES[what.places]
    file = "the YAML file that describes the domains (`fundus-seg data init` writes one)"
    coding, smooth = what.coding, ""
    if what.seen is not None and not (coding := coding_to_write(what.seen, paths)):
        coding, smooth = coding_text(what.seen), "export them without smooth borders and "
    advice = smooth + (as_option if option else in_yaml).format(coding=coding, option=option, file=file)
    return Problem(f"{text}; {advice}", first.parent)
