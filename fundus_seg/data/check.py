"""Everything that is wrong with a data root, at once and by file, and what its photographs and masks are like.

An error is what training refuses or what would make its scores wrong; a warning is what somebody should look at.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.cache import training_problem
from fundus_seg.data.dataset import join, read_masks
from fundus_seg.data.duplicates import find_copies, fingerprint
from fundus_seg.data.files import SPLITS, Case, Split
from fundus_seg.data.io import count_greys, read_image
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import Problems
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import source_half

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One problem, as a line that opens with the file, and how much it matters."""

    severity: Severity
    problem: str


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `count` values; None where there are too few for one."""

    mean: float | None
    sd: float | None
    count: int


@dataclass(frozen=True)
class SplitSummary:
    """What one split of one domain is like.

    Attributes:
        cases: photographs that have a mask, readable or not.
        frames: how many photographs have each size, as "width x height" in pixels.
        greys: how many pixels of its masks have each grey, which is text, as JSON wants its keys.
        empty_disc, empty_cup, cup_touches_background, disc_cut: how many masks.
        disc_to_frame: height of the disc over that of the frame.
        cup_to_disc: vertical cup-to-disc ratio; masks with an empty structure left out.
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


@dataclass(frozen=True)
class RootCheck:
    """What `check_root` found."""

    root: str
    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]

    def problems(self, severity: Severity) -> list[str]:
        """The problems of one severity: what is missing, then case by case, then copies."""
        return [finding.problem for finding in self.findings if finding.severity == severity]

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON holds."""
        return {
            "root": self.root,
            "errors": len(self.problems("error")),
            "warnings": len(self.problems("warning")),
            "splits": [asdict(split) for split in self.splits],
            "problems": [
                dict(zip(("severity", "file", "problem"), (found.severity, *found.problem.split(": ", 1)), strict=True))
                for found in self.findings
            ],
        }


@dataclass(frozen=True)
class _Picture:
    """What is kept of a photograph."""

    frame: tuple[int, int]  # height, width
    digest: bytes
    fingerprint: NDArray[np.float32]


@dataclass(frozen=True)
class _Drawing:
    """What is kept of a mask."""

    greys: NDArray[np.int64]  # (256,) pixels
    disc_height: float  # share of the frame's
    cup_height: float
    cup_touches_background: bool
    disc_cut: bool


@dataclass(frozen=True)
class _Inspection:
    """What is kept of a case; no picture or no drawing where the file cannot be used."""

    case: Case
    findings: tuple[Finding, ...]
    picture: _Picture | None
    drawing: _Drawing | None


def check_root(root: DataRoot, *, progress: Progress = SILENT) -> RootCheck:
    """Read every photograph and mask of a root, on all cores, and go on past whatever is broken.

    Args:
        root: the root, with one domain or more.
        progress: where to show how far it has come.
    """
    findings = []
    if len(root.domains) < 2:
        findings.append(
            Finding("error", f"{root.path}: holds only domain {root.domains[0]}; training needs two or more")
        )
    cases: list[Case] = []
    for domain in root.domains:
        for split in SPLITS:
            complete, missing = root.survey(domain, split)
            cases += complete
            if split == "test" and complete and len({source_half(case.name) for case in complete}) < 2:
                halves = f"the {len(complete)} test cases of {domain} all fall into one half by their names"
                findings.append(Finding("error", f"{root.path}: {halves}; add some, to select on and to calibrate"))
            findings += [Finding("error", problem) for problem in missing]
    with (
        progress.task(f"checking {root.path}", total=len(cases)) as advance,
        ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,
    ):
        inspections = []
        for inspection in pool.map(_inspect, cases):
            inspections.append(inspection)
            findings += inspection.findings
            advance()
    findings += _shared_pictures(inspections)
    summaries = tuple(
        _summary(
            domain, split, [seen for seen in inspections if (seen.case.domain, seen.case.split) == (domain, split)]
        )
        for domain in root.domains
        for split in SPLITS
    )
    return RootCheck(str(root.path), summaries, tuple(findings))


def _inspect(case: Case) -> _Inspection:
    problems = Problems()
    image = masks = drawing = None
    with problems.gather():
        image = read_image(case.image)
    with problems.gather():
        masks = read_masks(case)
        if image is not None:
            join(case, image, masks)
    picture = None if image is None else _picture(image)
    if picture is not None and not picture.fingerprint.any():
        problems.lines.append(f"{case.image}: one flat colour: export it again, or leave the case out")
    findings = [Finding("error", problem) for problem in problems.lines]
    if masks is not None:
        coded = case.annotation.coding is not None  # two binary files hold no greys worth a look
        drawing = _drawing(masks, count_greys(case.mask) if coded else np.zeros(256, np.int64))
        findings += _judge(case, masks, drawing)
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
    )


def _rows_spanned(mask: NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(mask.any(axis=1))
    return int(np.ptp(rows)) + 1 if rows.size else 0


def _judge(case: Case, masks: NDArray[np.bool_], drawing: _Drawing) -> Iterator[Finding]:
    """What can be wrong with a mask that reads well."""
    if problem := training_problem(masks):
        yield Finding("error" if case.split == "train" else "warning", f"{case.mask}: {problem}")
    elif not drawing.cup_height:
        yield Finding("warning", f"{case.mask}: the cup is empty: outline it, or its scores exclude the case")
    elif drawing.cup_touches_background:
        yield Finding("warning", f"{case.mask}: the cup touches the background: leave a rim all around it")
    if drawing.disc_cut:
        yield Finding("warning", f"{case.mask}: the frame cuts the disc: crop with a wider margin")


def _shared_pictures(inspections: Sequence[_Inspection]) -> Iterator[Finding]:
    """Copies of a photograph: errors across splits and domains, where they are leaks, else warnings."""
    seen = [(each.case, each.picture) for each in inspections if each.picture is not None]
    if not seen:
        return
    fingerprints = np.stack([picture.fingerprint for _, picture in seen])
    for copy in find_copies(fingerprints, [(case.domain, case.split) for case, _ in seen]):
        (first, picture), (second, other) = seen[copy.first], seen[copy.second]
        same = "the same pixels as" if picture.digest == other.digest else "the same picture as"
        how = f" ({'mirrored, ' if copy.mirrored else ''}correlation {copy.correlation:.2f})"
        leak = (first.domain, first.split) != (second.domain, second.split)
        fix = "a shared eye is a leak, keep it on one side" if leak else "keep one of the two"
        yield Finding("error" if leak else "warning", f"{second.image}: {same} {first.image}{how}: {fix}")


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
        empty_cup=sum(not drawing.cup_height for drawing in drawings),
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
