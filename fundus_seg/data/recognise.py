"""Recognise the codings of predicted and true masks by the anatomy that they show.

A wrong coding would silently give wrong scores. So masks that contradict their coding, or leave it open, are refused
with an error that says how to give the coding. `settle_codings` finds the coding of masks that came without one, before
they are read; `witness.Witness` watches masks while they are read in a coding that was given. Both ask `shown.shown`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fundus_seg.builtins import BACKGROUND, CUP, RIM, Unannotated
from fundus_seg.data.coding import CODINGS, DOFE, Coding, Colour, Thresholds, as_thresholds
from fundus_seg.data.io import count_greys, read_binary_mask, read_image, read_mask
from fundus_seg.data.shown import OneStructure, corners, recognised, shown
from fundus_seg.errors import DataError, Problems, SharedFaultError, printable

MOST_MASKS = 16
"""At most this many masks of a side are inspected."""


@dataclass(frozen=True)
class Side:
    """The predicted masks, or the true ones, of the cases that have both.

    Attributes:
        where: their folder or pattern, or two for binary files: discs, cups.
        files: for each case one coded file, or two binary files, disc and cup.
        coding: the coding that the user gave; None: it is to be recognised.
        option: the command's option for that coding, for messages.
        unannotated_cup: as in `Annotation`; with `missing`, one folder or pattern is of discs alone.
    """

    where: Sequence[str]
    files: Sequence[tuple[Path, ...]]
    coding: Coding | Thresholds | None
    option: str
    unannotated_cup: Unannotated = "never"

    @property
    def binary(self) -> bool:
        """Whether each structure has a binary file of its own."""
        return len(self.where) == 2 or self.unannotated_cup == "missing"


def settle_coding(truths: Side) -> Coding | Thresholds | None:
    """Settle the coding of true masks alone: the one that the user gave, or the recognised one; None for binary files.

    Masks without three areas show no coding. They are read as `dofe` where their greys are its own and say which is
    which: a rim, or nothing but background.

    Raises:
        DataError: as `settle_codings`.
    """
    if truths.binary:
        if truths.coding is None:
            _refuse_inverted(truths)
        return truths.coding
    found = _shown(truths)
    if not found:
        greys = _greys(truths)
        if greys == {BACKGROUND} or (RIM in greys and greys <= {BACKGROUND, RIM, CUP}):
            return DOFE
    return _settled(truths, found, {})


def settle_codings(predictions: Side, truths: Side) -> tuple[Coding | Thresholds | None, Coding | Thresholds | None]:
    """Settle the coding of both sides: the one that the user gave, or the recognised one; None for binary files.

    Raises:
        DataError: binary masks are white outside; the masks of a side show several codings, or none and the other side
            does not help; or both sides show the same colours in another order.
    """
    problems = Problems()
    for side in (predictions, truths):
        if side.binary and side.coding is None:
            with problems.gather():
                _refuse_inverted(side)
    shown_by_predictions, shown_by_truths = _shown(predictions), _shown(truths)
    predicted, true = predictions.coding, truths.coding
    if not predictions.binary:
        with problems.gather():
            predicted = _settled(predictions, shown_by_predictions, shown_by_truths)
    if not truths.binary:
        with problems.gather():
            true = _settled(truths, shown_by_truths, shown_by_predictions)
    problems.refuse("problems with the coding of masks")
    given = predictions.coding is not None and truths.coding is not None
    if not given and predicted != true and _colours(predicted) == _colours(true) != frozenset():
        raise DataError(
            f"{predicted} by what they show, but {truths.where[0]} has the same colours as {true}; "
            f"say which they are with {predictions.option} and {truths.option}",
            predictions.where[0],
        )
    return predicted, true


def _colours(coding: Coding | Thresholds | None) -> frozenset[Colour]:
    return frozenset(coding.colours) if isinstance(coding, Coding) else frozenset()


def _refuse_inverted(side: Side) -> None:
    """Refuse binary masks that are white around the disc or cup and black inside."""
    problems = Problems()
    for position, place in enumerate(side.where):
        inverted = inspected = 0
        for files in (each for each in side.files if position < len(each)):
            try:
                mask = read_binary_mask(files[position])
            except DataError:  # reported later, when all masks are read
                continue
            if mask.any():
                inspected += 1
                inverted += bool(corners(mask).mean() > 0.5)
            if inspected == MOST_MASKS:
                break
        if 2 * inverted > inspected:
            problems.add(
                f"white in the frame's corners in {inverted} of {inspected} binary masks, and white is inside; "
                "invert the files to white on black",
                place,
            )
    problems.refuse("folders of inverted masks")


def _shown(side: Side) -> Mapping[Coding | Thresholds, Path]:
    """The codings that the masks of a side show, each with the first file that shows it.

    A coding that the user gave is the only one. Masks without three areas show none, and binary files have none.
    """
    if side.coding is not None:
        return {side.coding: side.files[0][0]}
    found: dict[Coding | Thresholds, Path] = {}
    if side.binary:
        return found
    inspected = 0
    for (path,) in side.files:
        if inspected == MOST_MASKS:
            break
        try:
            coding = recognised(read_image(path))
        except DataError:  # reported later, when all masks are read
            continue
        if coding is not None:
            found.setdefault(coding, path)
            inspected += 1
    return found


def _settled(
    side: Side, shown: Mapping[Coding | Thresholds, Path], other: Mapping[Coding | Thresholds, Path]
) -> Coding | Thresholds:
    """The coding that a side shows; if it shows none, that of the other side, if it has a name and the greys agree."""
    if len(shown) == 1:
        return next(iter(shown))
    how = f'give it as {side.option} labels, {side.option} dofe or {side.option} "{{cup: 2, rim: 1, background: 0}}"'
    if shown:
        (one, first), (another, second), *_ = shown.items()
        raise DataError(f"the coding is not clear: {one} in {first}, {another} in {second}; {how}", side.where[0])
    if len(other) == 1:
        coding = next(iter(other))
        if coding in CODINGS.values() and _greys(side) == {red for red, _, _ in _colours(coding)}:
            return coding
    alone = _one_structure(side)
    binary = f" ({alone}: give two folders of binary masks, first the discs, then the cups)" if alone else ""
    raise DataError(
        f"no mask shows a cup surrounded by its rim, so their coding cannot be recognised{binary}; {how}", side.where[0]
    )


def _one_structure(side: Side) -> str | None:
    """The first of a few masks that shows one structure alone, in words; None if none does."""
    for path, *_ in side.files[:MOST_MASKS]:
        with contextlib.suppress(DataError):  # reported later, when all masks are read
            if isinstance(seen := shown(read_image(path)), OneStructure):
                return f"{printable(path.name)} shows {seen}"
    return None


def _greys(side: Side) -> set[int]:
    """All greys in the first masks of a side."""
    greys: set[int] = set()
    for path, *_ in side.files[:MOST_MASKS]:
        with contextlib.suppress(DataError):  # reported later, when all masks are read
            greys |= set(np.flatnonzero(count_greys(path)).tolist())
    return greys


def coding_to_write(coding: Coding, paths: Sequence[Path]) -> str:
    """What to write in YAML to read masks that show a coding: the coding, or thresholds where borders are smooth.

    Nothing is to be written for colours with smooth borders, which neither reads.
    """
    for path in paths[:MOST_MASKS]:
        try:
            read_mask(path, coding)
        except SharedFaultError:
            return as_thresholds(coding)
        except DataError:  # reported as such
            continue
    return coding_text(coding)


def coding_text(coding: Coding) -> str:
    """A coding as it is written in YAML: its name, or its three colours."""
    for name, known in CODINGS.items():
        if coding == known:
            return name
    colours = {"cup": coding.cup, "rim": coding.rim, "background": coding.background}
    return "{" + ", ".join(f"{area}: {_colour_text(colour)}" for area, colour in colours.items()) + "}"


def _colour_text(colour: Collection[int]) -> str:
    return str(next(iter(colour))) if len(set(colour)) == 1 else '"#' + "".join(f"{each:02x}" for each in colour) + '"'
