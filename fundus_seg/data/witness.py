"""Watch true masks while they are read, and say what is wrong or odd about whole groups of them.

Every command that reads truth asks this one witness, at next to no cost: only where most of a group look wrong (the
background is not in the corners, the cup surrounds the rim, no mask has a cup, no file can be decoded) are a few files
read again to name what they show.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import (
    Annotation,
)
from fundus_seg.data.contradiction import contradictions, looks, pattern
from fundus_seg.data.io import Photograph
from fundus_seg.data.orientation import NIFTI_FIX, brightness, check_fit, misfit, undecided
from fundus_seg.data.recognise import MOST_MASKS
from fundus_seg.data.stray import stray_parts
from fundus_seg.errors import DataError, Problem, Problems, SharedFaultError
from fundus_seg.progress import Progress

MOST_ODD = 0.1
"""More odd masks than this share of a group, and more than one, are a pattern."""
_FEW = 2
"""Up to so many files that share a fault are named one by one."""

Kind = Literal["coding", "no disc", "no cup", "cup outside", "stray", "same mask", "turned by EXIF", "turned"]
_WHAT: dict[Kind, str] = {
    "coding": "contradict their coding",
    "no disc": "have no disc",
    "no cup": "have no cup",
    "cup outside": "have a cup that leaves its disc",
    "stray": "have stray parts or holes",
    "same mask": "are the mask of another case",
    "turned by EXIF": "may lie on their photographs as these are stored, not as EXIF turns them",
    "turned": "may lie on their photographs another way than they are read",
}


@dataclass(frozen=True)
class Oddity:
    """What is odd about some masks of a group, which are used all the same.

    Attributes:
        kind: what it is.
        group: the group: `A/train`.
        total: the number of masks in the group.
        problems: what is odd about each of these masks.
        whole: whether this is to be said of the group alone, and not of each mask.
    """

    kind: Kind
    group: str
    total: int
    problems: tuple[Problem, ...]
    whole: bool = False

    @property
    def summary(self) -> str:
        """How many masks of which group are odd, and in what way."""
        return f"{len(self.problems)} of {self.total} masks of {self.group} {_WHAT[self.kind]}"

    def __str__(self) -> str:
        return odd_line(self.summary, self.problems[0])


def odd_line(summary: str, first: Problem) -> str:
    """The one line about masks that are odd in the same way: how many, and the first of them."""
    return f"{summary}; first {first}"


@dataclass(frozen=True)
class Suspicion:
    """What is wrong with some masks.

    Attributes:
        problems: a pattern over a whole group of masks, which must be mended before they are used.
        oddities: what is worth a look.
        explained: the files of the masks that show a pattern. What else is wrong with them follows from it.
    """

    problems: tuple[Problem, ...]
    oddities: tuple[Oddity, ...]
    explained: frozenset[Path]

    def unexplained(self, problems: Iterable[Problem]) -> list[Problem]:
        """The problems that are not about masks whose pattern explains them."""
        return [problem for problem in problems if problem.path not in self.explained]

    def tell(self, progress: Progress, *, but: Sequence[Kind] = ()) -> None:
        """Warn of each kind of oddity on one line, `but` for some kinds."""
        for oddity in self.oddities:
            if oddity.kind not in but:
                progress.warn(str(oddity))


class _Coded(NamedTuple):
    """The files of one mask, how they look (`sound`, `doubtful`, without disc or cup, or not decoded), and a leak.

    The leak is the number of the cup's pixels that lie outside a disc that holds others of them.
    """

    files: tuple[Path, ...]
    looks: Literal["sound", "doubtful", "no disc", "no cup", "unread"]
    leak: int = 0


@dataclass
class _Group:
    """What was seen of a group, beside the coding of its masks."""

    discs: int = 0
    cups: int = 0
    cases: list[Path] = field(default_factory=list)
    oddities: dict[Kind, list[Problem]] = field(default_factory=dict)
    brightness: list[tuple[Path, list[float]]] = field(default_factory=list)
    mixed: bool = False
    drawn: dict[bytes, list[Path]] = field(default_factory=dict)
    faults: list[Problem] = field(default_factory=list)


class Witness:
    """Watches the masks of some groups while they are read, and says where they contradict what is said of them.

    A group is what shares a coding and was exported together: a split of a domain, as one annotator drew it. Threads
    may share a witness.

    Args:
        option: the command's option for the coding, for messages; None: a YAML file has it.
    """

    def __init__(self, option: str | None = None) -> None:
        self._option = option
        self._coded: dict[tuple[str, Annotation], list[_Coded]] = {}
        self._groups: dict[str, _Group] = {}

    def see(
        self,
        group: str,
        files: tuple[Path, ...],
        annotation: Annotation,
        seen: NDArray[np.bool_] | DataError,
        *,
        cup_annotated: bool = True,
    ) -> None:
        """Look at the masks (2, H, W) of one case as its files were decoded, or at the error why they were not."""
        if isinstance(seen, DataError):
            self.fault(group, seen)
            coded = _Coded(files, "unread")
        else:
            look = looks(seen)
            coded = _Coded(files, "sound" if look == "no cup" and not cup_annotated else look, _leak(seen))
        self._coded.setdefault((group, annotation), []).append(coded)

    def fault(self, group: str, error: DataError) -> None:
        """Remember a fault that other files of the group may share."""
        if isinstance(error, SharedFaultError):
            self._groups.setdefault(group, _Group()).faults += error.problems

    def look(
        self,
        group: str,
        path: Path,
        masks: NDArray[np.bool_],
        photograph: Photograph | None = None,
        *,
        mixed: bool = False,
        cup_annotated: bool = True,
    ) -> None:
        """Look at the masks (2, H, W) of one case as they are used, and check that they lie on their photograph.

        Args:
            group: the group.
            path: the first file of the masks.
            masks: the masks, of several annotators merged.
            photograph: what they lie on, if it is there.
            mixed: whether one of the two is a NIfTI and the other a picture.
            cup_annotated: whether an empty cup says anything.

        Raises:
            SharedFaultError: as `check_fit`.
        """
        if photograph is not None:
            try:
                check_fit(photograph, masks, path)
            except SharedFaultError as error:
                self.fault(group, error)
                raise
        seen = self._groups.setdefault(group, _Group())
        disc, cup = (bool(mask.any()) for mask in masks)
        odd: dict[Kind, str] = {}
        if not disc:
            odd["no disc"] = "the disc is empty: outline it, or leave the case out"
        elif not cup and cup_annotated:
            odd["no cup"] = "the cup is empty: outline it, or its scores exclude the case"
        if stray := ", ".join(stray_parts(masks)):
            odd["stray"] = f"{stray}: look at it, since truth is never cleaned"
        if photograph is not None and (doubt := undecided(photograph, masks)):
            odd["turned by EXIF"] = doubt
        if photograph is not None:
            seen.mixed |= mixed
            seen.brightness.append((path, brightness(photograph.pixels, masks)))
        if disc:
            seen.drawn.setdefault(hashlib.blake2b(np.packbits(masks).tobytes()).digest(), []).append(path)
        seen.cases.append(path)
        seen.discs += disc
        seen.cups += cup
        for kind, text in odd.items():
            seen.oddities.setdefault(kind, []).append(Problem(text, path))

    def suspicion(self) -> Suspicion:
        """What the masks that were seen show against what is said of them."""
        problems: list[Problem] = []
        oddities: list[Oddity] = []
        explained: set[Path] = set()
        doubted: set[Path] = set()
        for (group, annotation), seen in sorted(self._coded.items(), key=lambda item: item[0][0]):
            found, odd = self._against_coding(group, annotation, seen, explained)
            problems += found
            if odd:
                oddities.append(Oddity("coding", group, len(seen), tuple(odd)))
                doubted |= {Path(each.path) for each in odd if each.path is not None}
            leaks = tuple(
                Problem(f"{each.leak} pixels of the cup lie outside the disc, which is extended by them", each.files[0])
                for each in sorted(seen)
                if each.leak and not (explained | doubted) & set(each.files)
            )
            if leaks:
                oddities.append(Oddity("cup outside", group, len(seen), leaks))
        oddities += self._same_masks(but=explained | doubted)
        for group, of_group in sorted(self._groups.items()):
            problems += _shared_faults(group, of_group, explained)
            if len(of_group.cases) > 1 and not of_group.discs and not explained & set(of_group.cases):
                first, *_ = sorted(of_group.cases)
                count = len(of_group.cases)
                text = f"{count} of {count} masks of {group} have no disc; first {first.name}: outline the discs"
                problems.append(Problem(text, first.parent))
                explained |= set(of_group.cases)
            oddities += _oddities(group, of_group, explained | doubted)
            for problem in _turned(group, of_group, explained):
                if isinstance(problem, Oddity):
                    oddities.append(problem)
                else:
                    problems.append(problem)
        return Suspicion(tuple(problems), tuple(oddities), frozenset(explained))

    def _same_masks(self, *, but: Collection[Path]) -> Iterator[Oddity]:
        """The masks of each group that are pixel for pixel that of another case, in this group or in an earlier one."""
        owners: dict[bytes, Path] = {}
        for group, seen in sorted(self._groups.items()):
            same = []
            for digest, paths in sorted(seen.drawn.items(), key=lambda item: min(item[1])):
                for path in sorted(set(paths) - set(but)):
                    if (owner := owners.setdefault(digest, path)) != path:
                        same.append(Problem(f"the same mask as {owner}: one of them is of another eye", path))
            if same:
                yield Oddity("same mask", group, len(seen.cases), tuple(same))

    def _against_coding(
        self, group: str, annotation: Annotation, seen: Sequence[_Coded], explained: set[Path]
    ) -> tuple[list[Problem], list[Problem]]:
        """The patterns of a group, and its single odd masks; `explained` gets the files of the patterns."""
        problems, oddities = [], []
        lacking = all(each.looks in ("no disc", "no cup") for each in seen)
        doubtful = sorted(each.files for each in seen if lacking or each.looks in ("doubtful", "unread"))
        total = len(seen) if lacking else sum(each.looks != "no disc" for each in seen)
        against = dict(contradictions(doubtful, annotation, lacking=lacking))
        of_sample = len(doubtful) / max(1, min(len(doubtful), MOST_MASKS))
        for what, here in Counter(against.values()).items():
            files = [files for files, each in against.items() if each == what]
            count = round(here * of_sample)
            if count == total or count > max(1, MOST_ODD * total):
                problems.append(
                    pattern(group, annotation, what, [path for path, *_ in files], count, total, self._option)
                )
                explained |= {path for each in (doubtful if count == len(doubtful) else files) for path in each}
            else:
                oddities += [Problem(f"{what.text}, unlike the others of {group}", path) for path, *_ in files]
        return problems, oddities


class Watch:
    """The witnesses of predicted and of true masks while these are compared."""

    def __init__(self) -> None:
        self.predictions = Witness("--pred-coding")
        self.truths = Witness("--truth-coding")

    def close(self, faults: Sequence[Problem], what: str, progress: Progress) -> None:
        """Once all masks were read, refuse what cannot be used, and warn of what is odd.

        Predictions may be wrong in any way: what they show against their coding is an error only where it explains why
        they cannot be read, else a warning.

        Args:
            faults: what was wrong with single files.
            what: the heading of several problems, as `Problems.refuse` takes it.
            progress: gets the warnings.

        Raises:
            DataError: there are problems.
        """
        predictions, truths = self.predictions.suspicion(), self.truths.suspicion()
        unreadable = any(problem.path in predictions.explained for problem in faults)
        rest = truths.unexplained(predictions.unexplained(faults))
        Problems([*truths.problems, *(predictions.problems if unreadable else ()), *rest]).refuse(what)
        for problem in predictions.problems:
            progress.warn(str(problem))
        for suspicion in (predictions, truths):
            suspicion.tell(progress)


def _leak(masks: NDArray[np.bool_]) -> int:
    """How many pixels of the cup lie outside the disc, of masks (2, H, W) as they were decoded.

    0 where hardly any do, or hardly any do not: borders drawn on two grids, and a rim that was saved as the disc.
    """
    disc, cup = masks
    outside, whole = int((cup & ~disc).sum()), int(cup.sum())
    return outside if 0.01 * whole < outside < 0.99 * whole else 0


def _shared_faults(group: str, seen: _Group, explained: set[Path]) -> Iterator[Problem]:
    """One problem for each fault that more than a few files share; `explained` gets these files."""
    alike: dict[str, list[Problem]] = {}
    for problem in seen.faults:
        if problem.path not in explained:
            alike.setdefault(re.sub(r"\[.*?\]|\d+(\.\d+)?", "", problem.text), []).append(problem)
    for problems in alike.values():
        if len(problems) > _FEW:
            first = min(problems, key=str)
            explained |= {Path(problem.path) for problem in problems if problem.path is not None}
            yield Problem(f"the first of {len(problems)} masks of {group} with this fault: {first.text}", first.path)


def _oddities(group: str, seen: _Group, explained: set[Path]) -> Iterator[Oddity]:
    """The oddities of a group's masks, but of those whose coding explains them."""
    for kind, found in seen.oddities.items():
        problems = tuple(sorted((each for each in found if each.path not in explained), key=str))
        if problems:
            whole = kind == "no cup" and len(problems) == len(seen.cases) > 1
            yield Oddity(kind, group, len(seen.cases), problems, whole)


def _turned(group: str, seen: _Group, explained: set[Path]) -> Iterator[Problem | Oddity]:
    """A group whose masks lie another way on their photographs than they are read; an error for NIfTI on pictures."""
    found = {path: each for path, each in seen.brightness if path not in explained}
    paths = sorted(found)
    if said := misfit([found[path] for path in paths]):
        text, certain = said
        text += f"; {NIFTI_FIX}" if seen.mixed else "; look whether they are mirrored or turned"
        if certain and seen.mixed:
            yield Problem(f"{group}: {text}", paths[0].parent)
        else:
            yield Oddity("turned", group, len(seen.cases), tuple(Problem(text, each) for each in paths), True)
