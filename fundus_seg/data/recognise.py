"""Recognise the codings of predicted and true masks by the anatomy that they show.

A wrong coding would silently give wrong scores. So masks that contradict their coding, or leave it open, are refused
with an error that says how to give the coding. There are two ways to ask, with one recogniser behind them:

- `settle_codings` finds the coding of masks that came without one, before they are read.
- `Witness` watches masks while they are read in a coding that was given, at next to no cost: only where most of a
  split look wrong (the background is not in the corners, the cup surrounds the rim, no file can be decoded) are a few
  files read again to name what they show.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND, CUP, RIM
from fundus_seg.data.coding import (
    CODINGS,
    DOFE,
    MOST_CONTACT,
    Annotation,
    Coding,
    Colour,
    OneStructure,
    Thresholds,
    contact,
    corners,
    recognised,
    shown,
)
from fundus_seg.data.io import count_greys, read_binary_mask, read_image
from fundus_seg.errors import DataError, Problem, Problems, printable

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
    """

    where: Sequence[str]
    files: Sequence[tuple[Path, ...]]
    coding: Coding | Thresholds | None
    option: str

    @property
    def binary(self) -> bool:
        """Whether there are two binary files for each case."""
        return len(self.where) == 2


@dataclass(frozen=True)
class Suspicion:
    """What is wrong with the coding of some masks.

    Attributes:
        problems: a pattern over a whole group of masks, which must be mended before they are used.
        oddities: single masks that contradict a coding with which the others of their group agree.
        explained: the files of the masks that show a pattern. What else is wrong with them follows from their coding.
    """

    problems: tuple[Problem, ...]
    oddities: tuple[Problem, ...]
    explained: frozenset[Path]

    def unexplained(self, problems: Iterable[Problem]) -> list[Problem]:
        """The problems that are not about masks whose coding explains them."""
        return [problem for problem in problems if problem.path not in self.explained]


MOST_ODD = 0.1
"""More odd masks than this share of a group, and more than one, are a pattern."""


class Witness:
    """Watches the masks of some groups while they are read, and says where they contradict their coding.

    A group is what shares a coding and was exported together: a split of a domain, as one annotator drew it. Threads
    may share a witness.

    Args:
        option: the command's option for the coding, for messages; None: a YAML file has it.
    """

    def __init__(self, option: str | None = None) -> None:
        self._option = option
        self._seen: dict[tuple[str, Annotation], list[tuple[tuple[Path, ...], bool | None]]] = {}

    def see(self, group: str, files: tuple[Path, ...], annotation: Annotation, masks: NDArray[np.bool_] | None) -> None:
        """Look at the masks (2, H, W) of one case as its files were decoded; None where they could not be."""
        doubtful = True if masks is None else _contradicts_anatomy(masks)
        self._seen.setdefault((group, annotation), []).append((files, doubtful))

    def suspicion(self) -> Suspicion:
        """What the masks that were seen show against their coding."""
        problems: list[Problem] = []
        oddities: list[Problem] = []
        explained: set[Path] = set()
        for (group, annotation), seen in sorted(self._seen.items(), key=lambda item: item[0][0]):
            doubtful = sorted(files for files, doubt in seen if doubt)
            against = dict(_against(doubtful, annotation))
            if not against:
                continue
            total = sum(doubt is not None for _, doubt in seen)
            of_sample = len(doubtful) / min(len(doubtful), MOST_MASKS)
            for what, here in Counter(against.values()).items():
                files = [files for files, each in against.items() if each == what]
                count = round(here * of_sample)
                if count == total or count > max(1, MOST_ODD * total):
                    problems.append(_pattern(group, annotation, what, files[0][0], count, total, self._option))
                    explained |= {path for each in (doubtful if count == len(doubtful) else files) for path in each}
                else:
                    oddities += [Problem(f"{what.text}, unlike the others of {group}", path) for path, *_ in files]
        return Suspicion(tuple(problems), tuple(oddities), frozenset(explained))


def _contradicts_anatomy(masks: NDArray[np.bool_]) -> bool | None:
    """Whether masks (2, H, W), as decoded, look as if their coding were another one; None for masks without a disc."""
    disc, cup = masks
    if not disc.any():
        return None
    if corners(disc).mean() > 0.5:
        return True
    rim = disc & ~cup
    if not rim.any():
        return True
    return bool(cup.any()) and contact(~disc, rim) < MOST_CONTACT * contact(~disc, cup)


@dataclass(frozen=True)
class _Shows:
    """What a mask shows against its coding, in words, and the line of YAML that says so; empty where there is none."""

    text: str
    line: str


def _against(doubtful: Sequence[tuple[Path, ...]], annotation: Annotation) -> Iterator[tuple[tuple[Path, ...], _Shows]]:
    """Read some of the doubtful masks again: those that show something else than their coding says."""
    for files in doubtful[:MOST_MASKS]:
        with contextlib.suppress(DataError):  # a file that cannot be read is reported as such
            what = _single(files[0], annotation) if len(files) == 1 else _double(files)
            if what is not None:
                yield files, what


def _single(path: Path, annotation: Annotation) -> _Shows | None:
    """What one coded file shows, if that is not its coding."""
    seen = shown(read_image(path))
    if seen is None or seen == annotation.coding:
        return None
    if isinstance(annotation.coding, Thresholds):
        return None if isinstance(seen, Coding) else _Shows(f"shows {seen}", "")
    if isinstance(seen, OneStructure):
        return _Shows(f"shows {seen}", 'masks: {disc: "DISCS/{name}.png", cup: "CUPS/{name}.png"}')
    return _Shows(f"shows {seen}", f"coding: {coding_text(seen)}")


def _double(files: tuple[Path, ...]) -> _Shows | None:
    """What two binary files show, if these are not a disc and a cup, white on black."""
    seen = [shown(read_image(path)) for path in files]
    for each in seen:
        if isinstance(each, Coding):
            return _Shows(f"shows {each} in one file", f'coding: {coding_text(each)}, with one pattern in "masks"')
    kinds = [each for each in seen if isinstance(each, OneStructure)]
    brightness = [(sum(each.inside), sum(each.outside)) for each in kinds]
    if any(inside < outside for inside, outside in brightness):
        at = next(number for number, (inside, outside) in enumerate(brightness) if inside < outside)
        limit = -(-(brightness[at][0] + brightness[at][1]) // 6)
        return _Shows(f"shows {kinds[at]}: black on white", f'coding: "<{limit}"')
    disc, cup = (read_binary_mask(path) for path in files)
    if disc.shape == cup.shape and disc.any() and not (disc & ~cup).any() and (cup & ~disc).any():
        return _Shows("shows a disc inside its cup", "")
    return None


def _pattern(
    group: str,
    annotation: Annotation,
    what: _Shows,
    first: Path,
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
    text = f"{count} of {total} masks of {group} {shows}, against {given}; first {first.name}"
    if count < total:
        return Problem(f"{text}; export all of them alike", first.parent)
    if what.text == "shows a disc inside its cup":
        return Problem(f'{text}; exchange the two patterns in "masks: {{disc: ..., cup: ...}}"', first.parent)
    if not what.line:
        return Problem(f"{text}; correct it", first.parent)
    if option is not None and what.line.startswith("coding: "):
        return Problem(f"{text}; give {option} '{what.line.removeprefix('coding: ')}'", first.parent)
    file = "the YAML file that describes the domains (docs/domains.md)"
    return Problem(f"{text}; write `{what.line}` for this domain in {file}", first.parent)


def coding_text(coding: Coding) -> str:
    """A coding as it is written in YAML: its name, or its three colours."""
    for name, known in CODINGS.items():
        if coding == known:
            return name
    colours = {"cup": coding.cup, "rim": coding.rim, "background": coding.background}
    return "{" + ", ".join(f"{area}: {_colour_text(colour)}" for area, colour in colours.items()) + "}"


def _colour_text(colour: Collection[int]) -> str:
    return str(next(iter(colour))) if len(set(colour)) == 1 else '"#' + "".join(f"{each:02x}" for each in colour) + '"'


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
        for files in side.files:
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
