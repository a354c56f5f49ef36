"""Find masks that any tool has made, match predictions with truths by name, and read both in their codings.

The masks lie in a folder, one file for each case (`NAME.png`, `NAME.nii.gz`), or where a pattern says, such as
`masks/{name}/seg.nii.gz`. Two folders or patterns mean two binary files for each case: disc and cup.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import Unannotated
from fundus_seg.cores import map_on_cores
from fundus_seg.data.coding import Annotation, Coding, Thresholds
from fundus_seg.data.dataset import cup_annotated, nested, read_files
from fundus_seg.data.files import NAME, WILDCARDS, Pattern, left_over
from fundus_seg.data.io import Photograph, frame_text, read_image
from fundus_seg.data.layout import of_phantom
from fundus_seg.data.listing import MASKS, Skipped, in_folder, summary, tell
from fundus_seg.data.names import case_hint, matched, name_of, told_apart
from fundus_seg.data.nifti import PICTURE, is_nifti, lying
from fundus_seg.data.orientation import Turns
from fundus_seg.data.recognise import Side, settle_codings
from fundus_seg.data.witness import Watch, Witness
from fundus_seg.errors import DataError, Problems, UsageError, about, listing
from fundus_seg.progress import SILENT, Progress


@dataclass(frozen=True)
class MaskFiles:
    """The mask files of some cases.

    Attributes:
        files: for each case, by name, one coded file or two binary files, disc and cup.
        annotation: how these files become two masks.
        nested: whether the disc of two binary files is extended to include its cup.
    """

    files: Mapping[str, tuple[Path, ...]]
    annotation: Annotation
    nested: bool

    def read(
        self, name: str, witness: Witness, photograph: Photograph | None = None, image: Path | None = None
    ) -> NDArray[np.bool_]:
        """Read the masks of one case, (2, H, W) bool, channels ("disc", "cup").

        Args:
            name: the case.
            witness: sees them.
            photograph: what they must lie on, if it is there.
            image: its file.

        Raises:
            DataError: as `read_files` and, for true masks, `check_fit`.
        """
        group = "the truth" if self.nested else "the predictions"
        files = self.files[name]
        try:
            masks = read_files(files, self.annotation)
        except DataError as error:
            witness.see(group, files, self.annotation, error)
            raise
        _, cup = self.annotated(name, masks)
        witness.see(group, files, self.annotation, masks, cup_annotated=cup)
        if self.nested:
            masks = nested(masks)
            mixed = image is not None and is_nifti(image) != is_nifti(files[0])
            witness.look(group, files[0], masks, photograph, mixed=mixed, cup_annotated=cup)
        return masks

    def annotated(self, name: str, masks: NDArray[np.bool_]) -> tuple[bool, bool]:
        """Whether disc and cup of a case are annotated, whose masks (2, H, W) were read."""
        return True, cup_annotated(self.files[name], masks, self.annotation)


def find_masks(
    where: Sequence[str], coding: Coding | Thresholds | None = None, *, progress: Progress = SILENT
) -> dict[str, tuple[Path, ...]]:
    """Find the mask files of each case, by name.

    Args:
        where: one folder or pattern of coded masks, or two of binary masks, disc and cup.
        coding: the coding, if the user gave one; binary masks have none but thresholds.
        progress: told of the files beside the masks that are left out.

    Raises:
        DataError: there is no mask, a case has two, or a disc or a cup lacks the other; the error lists all of them.
        UsageError: there are more than two places, or two and a coding that is no thresholds.
    """
    files, skipped = _find(where, coding)
    _tell([files], skipped, progress)
    return files


def _tell(found: Iterable[Mapping[str, tuple[Path, ...]]], skipped: Iterable[Skipped], progress: Progress) -> None:
    """Say which files are left out that no other place has."""
    taken = {path for files in found for paths in files.values() for path in paths}
    tell(dict.fromkeys(each for each in skipped if each.path not in taken), progress)


def _find(
    where: Sequence[str], coding: Coding | Thresholds | None, unannotated_cup: Unannotated | None = None
) -> tuple[dict[str, tuple[Path, ...]], list[Skipped]]:
    """The mask files of each case, by name, and the files that are left out, those of the other place among them.

    With `unannotated_cup` as `missing`, a case may have a disc alone; None: the command cannot say so.
    """
    if unannotated_cup == "missing" and isinstance(coding, Coding):
        raise UsageError("--unannotated-cup missing: a disc alone is a binary file without a coding but thresholds")
    if len(where) > 2 or (len(where) == 2 and isinstance(coding, Coding)):
        raise UsageError(f"{', '.join(where)}: give one place, or two of binary masks, disc then cup, without a coding")
    if len(where) > len(set(where)):
        raise UsageError(f"{where[0]} is given for discs and for cups: give the place of each")
    problems = Problems()
    found: list[dict[str, Path]] = []
    skipped: list[Skipped] = []
    for place in where:
        with problems.gather():
            masks, beside = _by_name(place)
            found.append(masks)
            skipped += beside
    problems.refuse("problems with the files of masks")
    if len(found) == 1:
        return {name: (path,) for name, path in found[0].items()}, skipped
    discs, cups = found
    way_out = "; if nobody has drawn it, give --unannotated-cup missing" if unannotated_cup else ""
    for name in sorted(discs.keys() - cups.keys()) if unannotated_cup != "missing" else ():
        problems.add(f"a disc without a cup in {where[1]}{way_out}", discs[name])
    for name in sorted(cups.keys() - discs.keys()):
        problems.add(f"a cup without a disc in {where[0]}", cups[name])
    problems.refuse("binary masks without their other half")
    return {name: (discs[name], cups[name]) if name in cups else (discs[name],) for name in discs}, skipped


def _by_name(place: str) -> tuple[dict[str, Path], Sequence[Skipped]]:
    """The mask of each case in a folder or a pattern, by name, and the files that are left out."""
    if Path(place).is_dir():
        inside = in_folder(Path(place), MASKS, "mask")
        skipped = inside.skipped
        found = [(name_of(path), path) for path in inside.files]
        if not found:
            raise DataError(
                f"no mask in it ({', '.join(MASKS)}){summary(skipped)}; "
                f"a pattern names them otherwise, as {place}/{NAME}/seg.png",
                place,
            )
    elif NAME in place or set(place) & set(WILDCARDS):
        pattern = Pattern(Path(), place)
        everything = pattern.find()
        found = everything.files
        skipped = tuple(left_over({pattern: everything}))
        if not found:
            empty = pattern.why_empty()
            raise DataError(empty.text, empty.path)
    else:
        raise DataError(f"no such folder; give a folder of masks, or a pattern as {place}/{NAME}.png", place)
    by_name: dict[str, Path] = {}
    problems = Problems()
    for name, path in found:
        first = by_name.setdefault(name, path)
        if first != path:
            beside = told_apart(first, path)
            problems.add(f"a second mask of {name} beside {beside}; leave one, or give a pattern", path)
    problems.refuse("cases with two masks")
    return by_name, skipped


@dataclass(frozen=True)
class MaskPairs:
    """Predicted and true masks of the same cases.

    Attributes:
        predictions: files and coding of the predicted masks.
        truths: files and coding of the true masks.
        names: names of the cases that have both, sorted.
        unpredicted: names of the cases that have only a true mask.
    """

    predictions: MaskFiles
    truths: MaskFiles
    names: tuple[str, ...]
    unpredicted: tuple[str, ...]

    @property
    def phantom(self) -> bool:
        """Whether any true mask belongs to the phantom."""
        return any(of_phantom(files[0]) for files in self.truths.files.values())

    def read(self, name: str, watch: Watch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Read prediction and truth of one case, (2, H, W) bool each; the witnesses of `watch` see them.

        Raises:
            DataError: as `read_files`, or the two differ in size: nothing is resampled.
        """
        problems = Problems()
        with problems.gather():
            prediction = self.predictions.read(name, watch.predictions)
        with problems.gather():
            truth = self.truths.read(name, watch.truths)
        problems.refuse(f"masks of {name} cannot be used")
        if prediction.shape != truth.shape:
            raise DataError(
                f"{frame_text(prediction[0])} pixels, but its truth has {frame_text(truth[0])} "
                f"({self.truths.files[name][0]}); export it at that size, nothing is resampled here",
                self.predictions.files[name][0],
            )
        return prediction, truth


def pair_masks(
    predictions: Sequence[str],
    truths: Sequence[str],
    *,
    prediction_coding: Coding | Thresholds | None = None,
    truth_coding: Coding | Thresholds | None = None,
    unannotated_cup: Unannotated = "never",
    progress: Progress = SILENT,
) -> MaskPairs:
    """Match predicted and true masks by the names of their cases; a file without a partner is reported and left out.

    Args:
        predictions: one or two folders or patterns, as in `find_masks`. A predicted disc may lack pixels of its cup.
        truths: the same for the true masks, in which the disc always includes the cup.
        prediction_coding: coding of the predictions; None: it is recognised.
        truth_coding: coding of the true masks; None: it is recognised.
        unannotated_cup: which true cups are not annotated, as in `Annotation`.
        progress: gets a line for each recognised coding and each file without a partner.

    Raises:
        DataError: as `find_masks`, for both sides at once; there is no name in common; or as `settle_codings`.
        UsageError: as `find_masks`.
    """
    problems = Problems()
    found = []
    with problems.gather():
        found.append(_find(predictions, prediction_coding))
    with problems.gather():
        found.append(_find(truths, truth_coding, unannotated_cup))
    problems.refuse("problems with the files of masks")
    (given, beside_given), (true, beside_true) = found
    _tell([given, true], [*beside_given, *beside_true], progress)
    partners = matched(true, given)
    predicted = {name: given[partner] for name, partner in partners.items()}
    names = sorted(predicted)
    if not names:
        one, other = next(iter(given)), next(iter(true))
        raise DataError(
            f"no name in common with {truths[0]} ('{one}' here, '{other}' there); "
            + (
                case_hint(given, true)
                or f"a pattern says which part of a path is the name, as {_likely_pattern(predictions[0], given, true)}"
            ),
            predictions[0],
        )
    sides = (
        Side(predictions, [predicted[name] for name in names], prediction_coding, "--pred-coding"),
        Side(truths, [true[name] for name in names], truth_coding, "--truth-coding", unannotated_cup),
    )
    try:
        predicted_coding, true_coding = settle_codings(*sides)
    except DataError as error:
        raise _unreadable(sides, error) from error
    if predicted_coding != prediction_coding:
        progress.line(f"coding of the predictions, as recognised: {predicted_coding}")
    if true_coding != truth_coding:
        progress.line(f"coding of the true masks, as recognised: {true_coding}")
    unmatched = given.keys() - set(partners.values())
    progress.left_out(
        "prediction",
        "no true mask has that name",
        [given[name][0] for name in given if name in unmatched],
        case_hint(sorted(unmatched), true),
    )
    pairs = MaskPairs(
        MaskFiles(predicted, Annotation(predicted_coding), nested=False),
        MaskFiles(true, Annotation(true_coding, unannotated_cup=unannotated_cup), nested=True),
        tuple(names),
        tuple(name for name in true if name not in predicted),
    )
    _refuse_turned(pairs, progress)
    return pairs


def _likely_pattern(place: str, given: Iterable[str], true: Collection[str]) -> str:
    """A pattern of the predictions, with what all their names have before or behind those of true masks."""
    longest = sorted(true, key=len, reverse=True)
    around = set()
    for name in given:
        inner = next((each for each in longest if each in name), None)
        if inner is not None:
            around.add(name.replace(inner, NAME, 1))
    only = around.pop() if len(around) == 1 else f"{NAME}_seg"
    folder = Path(place) if Path(place).is_dir() else Path(place).parent
    return str(folder / f"{only}.png") if only == f"{NAME}_seg" else str(folder / f"{only}.*")


def _unreadable(sides: Iterable[Side], error: DataError) -> DataError:
    """The error that no coding was settled; of files that cannot be read, if there are any, since these say nothing."""
    problems = Problems()
    readable = True
    for side in sides:
        before = len(problems.found)
        for path in itertools.chain(*side.files):
            with problems.gather():
                read_image(path)
        readable &= len(problems.found) - before < sum(map(len, side.files))
    if not problems.found:
        return error
    if readable:  # others can be read, but show no coding
        problems.found += error.problems
    return DataError(listing(problems.found, "masks cannot be used"), problems=problems.found)


def _refuse_turned(pairs: MaskPairs, progress: Progress) -> None:
    """Compare masks in NIfTI files with masks that lie otherwise in all eight ways that one may lie on the other.

    Those are masks in pictures, and in NIfTI files whose headers turn them otherwise.

    Raises:
        DataError: another way than the one in which the files are read fits much better.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name in pairs.names:
        ways = (lying(pairs.predictions.files[name][0]), lying(pairs.truths.files[name][0]))
        if ways[0] != ways[1]:
            groups.setdefault(ways, []).append(name)
    for (predicted, _), names in sorted(groups.items()):
        nifti, others = pairs.predictions, pairs.truths
        if predicted == PICTURE:
            nifti, others = others, nifti
        turns = Turns()

        def compare(name: str, turns: Turns = turns, nifti: MaskFiles = nifti, others: MaskFiles = others) -> None:
            with contextlib.suppress(DataError):  # told where the masks are scored
                turns.add(*(nested(read_files(side.files[name], side.annotation)) for side in (nifti, others)))

        map_on_cores(compare, names, description="comparing orientations", progress=progress)
        first = nifti.files[names[0]][0]
        with about(first.parent):
            doubt = turns.refuse_other()
        if doubt:
            progress.warn(f"{first.parent}: {doubt}")
