"""How predicted and true masks are coded, by what they show: which colour is which area, and which is inside.

A coding read wrongly gives wrong scores without a trace, so what speaks against it is refused, with the fix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fundus_seg.data.coding import CODINGS, Coding, corners, recognised
from fundus_seg.data.io import count_greys, read_binary_mask, read_image
from fundus_seg.errors import DataError, Problems

ENOUGH = 16
"""Masks that are asked; of fewer files, all that say something."""


@dataclass(frozen=True)
class Side:
    """The predicted or the true masks of the cases that have both.

    Attributes:
        where: their folder or pattern; of binary files two, of discs and of cups.
        files: of each case one coded file, or two binary ones, disc and cup.
        coding: as given; None recognises it.
        option: that gives it, for messages.
    """

    where: Sequence[str]
    files: Sequence[tuple[Path, ...]]
    coding: Coding | None
    option: str


def settle_codings(predictions: Side, truths: Side) -> tuple[Coding | None, Coding | None]:
    """The codings of both sides, as given or recognised; None of binary files.

    Raises:
        DataError: binary files that are white outside; files that show several codings, or none, unless the other side
            shows it; or the same colours in another order on the two sides.
    """
    sides = predictions, truths
    problems = Problems()
    for side in sides:
        with problems.gather():
            _refuse_inverted(side)
    shown = [_shown(side) for side in sides]
    codings = []
    for side, own, other in zip(sides, shown, reversed(shown), strict=True):
        with problems.gather():
            codings.append(None if len(side.where) == 2 else _settled(side, own, other))
    problems.refuse("problems with the coding of masks")
    predicted, true = codings
    given = all(side.coding is not None for side in sides)
    if predicted and true and not given and predicted != true and set(predicted.colours) == set(true.colours):
        raise DataError(
            f"{predictions.where[0]}: {predicted} by what they show, but {truths.where[0]} has the same colours as "
            f"{true}; say which they are with {predictions.option} and {truths.option}"
        )
    return predicted, true


def _refuse_inverted(side: Side) -> None:
    """No binary masks whose inside is what surrounds the eye's structures, as where the background is white."""
    problems = Problems()
    for place, files in zip(side.where, zip(*side.files, strict=True), strict=True) if len(side.where) == 2 else ():
        inverted = asked = 0
        for path in files:
            try:
                mask = read_binary_mask(path)
            except DataError:  # named when all masks are read
                continue
            if mask.any():
                asked += 1
                inverted += bool(corners(mask).mean() > 0.5)
            if asked == ENOUGH:
                break
        if 2 * inverted > asked:
            problems.lines.append(
                f"{place}: white in the frame's corners in {inverted} of {asked} binary masks, and white is inside; "
                "invert the files to white on black"
            )
    problems.refuse("folders of inverted masks")


def _shown(side: Side) -> Mapping[Coding, Path]:
    """The codings that the first masks with three areas show, each with a file that does; a given one alone."""
    if side.coding is not None:
        return {side.coding: side.files[0][0]}
    shown: dict[Coding, Path] = {}
    asked = 0
    for path, *others in side.files:
        if others or asked == ENOUGH:
            break
        try:
            coding = recognised(read_image(path))
        except DataError:  # named when all masks are read
            continue
        if coding is not None:
            shown.setdefault(coding, path)
            asked += 1
    return shown


def _settled(side: Side, shown: Mapping[Coding, Path], other: Mapping[Coding, Path]) -> Coding:
    """The one coding that a side shows; of none, a coding with a name that the other side shows in the same greys."""
    if len(shown) == 1:
        return next(iter(shown))
    how = f'give it as {side.option} labels, {side.option} dofe or {side.option} "{{cup: 2, rim: 1, background: 0}}"'
    if shown:
        (one, first), (another, second), *_ = shown.items()
        raise DataError(f"{side.where[0]}: the coding is not clear: {one} in {first}, {another} in {second}; {how}")
    if len(other) == 1:
        (coding,) = other
        if coding in CODINGS.values() and _greys(side) == {red for red, _, _ in coding.colours}:
            return coding
    raise DataError(
        f"{side.where[0]}: no mask shows a cup surrounded by its rim, so their coding cannot be recognised; {how}"
    )


def _greys(side: Side) -> set[int]:
    """The greys of the first coded masks."""
    greys: set[int] = set()
    for path, *_ in side.files[:ENOUGH]:
        with contextlib.suppress(DataError):  # named when all masks are read
            greys |= set(np.flatnonzero(count_greys(path)).tolist())
    return greys
