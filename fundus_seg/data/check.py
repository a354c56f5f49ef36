"""Check a data root: find everything that is wrong with its files, and describe its photographs and masks.

An error is something that training refuses, or that would make scores wrong. A warning is worth a look.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.cores import map_on_cores
from fundus_seg.data.cache import training_problem
from fundus_seg.data.dataset import look, read_truth
from fundus_seg.data.duplicates import find_copies, fingerprint
from fundus_seg.data.files import SPLITS, Case, Split, not_drawn
from fundus_seg.data.framing import disc_framing, odd_framings
from fundus_seg.data.io import count_greys, read_photograph
from fundus_seg.data.layout import DataRoot
from fundus_seg.data.listing import Skipped
from fundus_seg.data.patients import shared_patients
from fundus_seg.data.witness import Suspicion, Witness
from fundus_seg.errors import Problem, Problems
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import source_half

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding(Problem):
    """A problem (its `text`, and the `path` that it is about) and how much it matters."""

    severity: Severity = "error"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `count` values; None where there are too few for one."""

    mean: float | None
    sd: float | None
    count: int


@dataclass(frozen=True)
class SplitSummary:
    """The photographs and masks of one split of one domain, in numbers.

    Attributes:
        domain: key of the domain.
        split: `train` or `test`.
        cases: number of photographs that have a mask, readable or not.
        frames: number of photographs of each size, by "WIDTHxHEIGHT" in pixels.
        greys: number of pixels of each grey in the masks, by the grey as text, since JSON has no other keys.
        empty_disc: number of masks with an empty disc.
        empty_cup: number of masks with an empty cup, but for those whose cup is not annotated.
        cup_not_annotated: number of masks whose cup is not annotated: they train and score the disc alone.
        cup_touches_background: number of masks in which the rim does not surround the cup.
        disc_cut: number of masks in which the frame cuts the disc.
        disc_to_frame: height of the disc divided by the height of the frame; empty discs are left out.
        cup_to_disc: vertical cup-to-disc ratio; masks with an empty structure are left out.
    """

    domain: str
    split: Split
    cases: int
    frames: dict[str, int]
    greys: dict[str, int]
    empty_disc: int
    empty_cup: int
    cup_touches_background: int
    disc_cut: int
    disc_to_frame: Spread
    cup_to_disc: Spread
    cup_not_annotated: int = 0


@dataclass(frozen=True)
class RootCheck:
    """What `check_root` found.

    Attributes:
        root: the folder or YAML file of the data root.
        splits: a summary of each split.
        findings: missing files first, then problems case by case, then copies of photographs, patients on two sides of
            a split, and framings that differ.
        skipped: the files that are left out, and why.
    """

    root: str
    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...] = ()

    def problems(self, severity: Severity) -> list[Finding]:
        """The findings of one severity, in their order."""
        return [finding for finding in self.findings if finding.severity == severity]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold."""
        return {
            "root": self.root,
            "errors": len(self.problems("error")),
            "warnings": len(self.problems("warning")),
            "splits": [asdict(split) for split in self.splits],
            "problems": [
                {"severity": finding.severity, "file": str(finding.path), "problem": finding.text}
                for finding in self.findings
            ],
            "left_out": [{"file": str(each.path), "reason": each.reason} for each in self.skipped],
        }


@dataclass(frozen=True)
class _Picture:
    """What the check keeps of a photograph."""

    frame: tuple[int, int]  # height, width
    digest: bytes
    fingerprint: NDArray[np.float32]


@dataclass(frozen=True)
class _Drawing:
    """What the check keeps of a mask."""

    greys: NDArray[np.int64]  # (256,) pixels
    disc_height: float  # as a share of the height of the frame
    cup_height: float  # the same
    cup_touches_background: bool
    disc_cut: bool
    framing: float  # as `disc_framing` gives it
    cup_annotated: bool = True


@dataclass(frozen=True)
class _Inspection:
    """What the check keeps of a case; `picture` or `drawing` is None if its file cannot be used."""

    case: Case
    findings: tuple[Finding, ...]
    picture: _Picture | None
    drawing: _Drawing | None


def check_root(root: DataRoot, *, progress: Progress = SILENT) -> RootCheck:
    """Read every photograph and mask of a root, on all cores; a broken file is a finding and does not end the check.

    Args:
        root: the root, with one domain or more.
        progress: where the progress is shown.
    """
    findings = []
    if len(root.domains) < 2:
        findings.append(Finding(f"holds only domain {root.domains[0]}; training needs two or more", root.path))
    cases: list[Case] = []
    for domain in root.domains:
        for split in SPLITS:
            found = root.split(domain, split)
            cases += found.cases
            if split == "test" and found.cases and len({source_half(case.subject) for case in found.cases}) < 2:
                halves = f"the {len(found.cases)} test cases of {domain} all fall into one half by name or patient"
                needed = "selection `source-validation` and in-domain scores need cases in both"
                findings.append(Finding(f"{halves}; {needed}, so add some", root.path, severity="warning"))
            findings += [Finding(problem.text, problem.path) for problem in found.problems]
    witness = Witness()
    description = f"checking {root.path}"
    inspections = map_on_cores(partial(_inspect, witness=witness), cases, description=description, progress=progress)
    suspicion = witness.suspicion()
    judged = [each for inspection in inspections for each in inspection.findings]
    findings += [Finding(problem.text, problem.path) for problem in suspicion.problems]
    findings += [finding for finding in judged if finding.path not in suspicion.explained]
    findings += _odd(suspicion, {(finding.path, finding.text) for finding in judged})
    findings += _shared_pictures(inspections)
    findings += map(_shared_patient, shared_patients(cases, root.patients))
    sound = [each for each in inspections if each.case.mask not in suspicion.explained]
    findings += [Finding(text, root.path, severity="warning") for text in odd_framings(_framings(sound))]
    findings += _missing_readers(cases)
    summaries = tuple(
        _summary(
            domain, split, [seen for seen in inspections if (seen.case.domain, seen.case.split) == (domain, split)]
        )
        for domain in root.domains
        for split in SPLITS
    )
    return RootCheck(str(root.path), summaries, tuple(findings), root.skipped)


def _odd(suspicion: Suspicion, judged: Collection[tuple[Path | str | None, str]]) -> Iterator[Finding]:
    """What is odd about each mask, or about a whole group of them; but for what was `judged` already."""
    for oddity in suspicion.oddities:
        first = oddity.problems[0]
        if oddity.whole:
            folder = Path(str(first.path)).parent
            yield Finding(f"{oddity.summary}: {first.text}", folder, severity="warning")
            continue
        for problem in oddity.problems:
            if (problem.path, problem.text) not in judged:
                yield Finding(problem.text, problem.path, severity="warning")


def _inspect(case: Case, witness: Witness) -> _Inspection:
    """Read and judge one case."""
    problems = Problems()
    photograph = truth = drawing = None
    with problems.gather():
        photograph = read_photograph(case.image)
    with problems.gather():
        truth = read_truth(case, witness)
        look(case, photograph, truth, witness)
    picture = None if photograph is None else _picture(photograph.pixels)
    if picture is not None and not picture.fingerprint.any():
        problems.add("one flat colour: export it again, or leave the case out", case.image)
    findings = [Finding(problem.text, problem.path) for problem in problems.found]
    if truth is not None:
        coded = case.annotation.coding is not None and len(case.masks[0]) == 1  # those of binary files tell nothing
        greys = count_greys(case.mask) if coded else np.zeros(256, np.int64)
        drawing = replace(_drawing(truth.masks, greys), cup_annotated=truth.annotated[1])
        findings += _judge(case, truth.masks, drawing)
    return _Inspection(case, tuple(findings), picture, drawing)


def _picture(image: NDArray[np.uint8]) -> _Picture:
    height, width = image.shape[:2]
    return _Picture((height, width), hashlib.sha256(image.tobytes()).digest(), fingerprint(image))


def _drawing(masks: NDArray[np.bool_], greys: NDArray[np.int64]) -> _Drawing:
    disc, cup = masks
    around_cup = cv2.dilate(cup.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).astype(bool)
    border = np.concatenate([disc[0], disc[-1], disc[:, 0], disc[:, -1]])
    return _Drawing(
        greys,
        disc_height=_rows_spanned(disc) / len(disc),
        cup_height=_rows_spanned(cup) / len(cup),
        cup_touches_background=bool((around_cup & ~disc).any()),
        disc_cut=bool(border.any()),
        framing=disc_framing(disc),
    )


def _rows_spanned(mask: NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(mask.any(axis=1))
    return int(np.ptp(rows)) + 1 if rows.size else 0


def _judge(case: Case, masks: NDArray[np.bool_], drawing: _Drawing) -> Iterator[Finding]:
    """The anatomical faults of a mask that can be read."""
    warn = partial(Finding, path=case.mask, severity="warning")
    if problem := training_problem(masks):
        yield Finding(problem, case.mask, severity="error" if case.split == "train" else "warning")
    elif drawing.cup_touches_background:
        yield warn("the cup touches the background: leave a rim all around it")
    if drawing.disc_cut:
        yield warn("the frame cuts the disc: crop with a wider margin")


def _shared_pictures(inspections: Sequence[_Inspection]) -> Iterator[Finding]:
    """Photographs that show the same picture: a leak, and so an error, across splits and domains, else a warning."""
    seen = [(each.case, each.picture) for each in inspections if each.picture is not None]
    if not seen:
        return
    fingerprints = np.stack([picture.fingerprint for _, picture in seen])
    for copy in find_copies(fingerprints, [(case.domain, case.split) for case, _ in seen]):
        (first, picture), (second, other) = seen[copy.first], seen[copy.second]
        same = "the same pixels as" if picture.digest == other.digest else "the same picture as"
        how = f"{'mirrored, ' if copy.mirrored else ''}correlation {copy.correlation:.2f}"
        leak = (first.domain, first.split) != (second.domain, second.split)
        fix = "a shared eye is a leak, keep it on one side" if leak else "keep one of the two"
        text = f"{same} {first.image} ({how}): {fix}"
        yield Finding(text, second.image, severity="error" if leak else "warning")


def _shared_patient(eyes: tuple[Case, Case]) -> Finding:
    """A patient with eyes in two splits or domains: an error where scores of an unseen domain would not be of unseen.

    Of a domain that is unseen only the test split is scored. Within a domain it is a warning: only in-domain scores and
    the choice of checkpoints look better than they are, and official splits of public data have such patients.
    """
    one, other = eyes
    between = one.domain != other.domain
    why = "no domain is unseen where its patients train" if between else "it flatters in-domain scores and selection"
    text = f"an eye of patient {one.patient}, as {one.image} of {one.domain}/{one.split} is: {why}"
    leak = between and "test" in (one.split, other.split)
    fix = "keep all eyes of a patient on one side"
    return Finding(f"{text}; {fix}", other.image, severity="error" if leak else "warning")


def _framings(inspections: Sequence[_Inspection]) -> dict[str, list[float]]:
    """The framing of each mask with a disc, by `domain/split`."""
    found: dict[str, list[float]] = {}
    for each in inspections:
        if each.drawing and each.drawing.framing:
            found.setdefault(f"{each.case.domain}/{each.case.split}", []).append(each.drawing.framing)
    return found


def _missing_readers(cases: Sequence[Case]) -> Iterator[Finding]:
    """The readers who have not drawn all cases of a split."""
    for place in dict.fromkeys((case.domain, case.split) for case in cases):
        own = [case for case in cases if (case.domain, case.split) == place]
        for reader, lacking in not_drawn(own).items():
            text = f"reader {reader} has drawn {len(own) - len(lacking)} of {len(own)} cases of {'/'.join(place)}"
            yield Finding(f"{text}; this is the first of the others", lacking[0].image, severity="warning")


def _summary(domain: str, split: Split, inspections: Sequence[_Inspection]) -> SplitSummary:
    frames = Counter(f"{each.picture.frame[1]}x{each.picture.frame[0]}" for each in inspections if each.picture)
    drawings = [each.drawing for each in inspections if each.drawing]
    greys = sum((drawing.greys for drawing in drawings), start=np.zeros(256, np.int64))
    return SplitSummary(
        domain,
        split,
        cases=len(inspections),
        frames=dict(frames.most_common()),
        greys={str(grey): int(count) for grey, count in enumerate(greys) if count},
        empty_disc=sum(not drawing.disc_height for drawing in drawings),
        empty_cup=sum(drawing.cup_annotated and not drawing.cup_height for drawing in drawings),
        cup_not_annotated=sum(not drawing.cup_annotated for drawing in drawings),
        cup_touches_background=sum(drawing.cup_touches_background for drawing in drawings),
        disc_cut=sum(drawing.disc_cut for drawing in drawings),
        disc_to_frame=_spread([drawing.disc_height for drawing in drawings if drawing.disc_height]),
        cup_to_disc=_spread(
            [
                drawing.cup_height / drawing.disc_height
                for drawing in drawings
                if drawing.disc_height and drawing.cup_height
            ]
        ),
    )


def _spread(values: Sequence[float]) -> Spread:
    mean = float(np.mean(values)) if values else None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean, sd, len(values))
