"""Find masks that any tool has made, match predictions with truths by name, and read both in their codings.

The masks lie in a folder, one file for each case (`NAME.png`, `NAME.nii.gz`), or where a pattern says, such as
`masks/{name}/seg.nii.gz`. Two folders or patterns mean two binary files for each case: disc and cup.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import DOFE, Annotation, Coding, Thresholds
from fundus_seg.data.dataset import frame_text, read_files
from fundus_seg.data.files import NAME, WILDCARDS, Pattern
from fundus_seg.data.layout import in_phantom
from fundus_seg.data.recognise import Side, settle_coding, settle_codings
from fundus_seg.errors import DataError, Problems, UsageError
from fundus_seg.progress import SILENT, Progress

MASKS = (".png", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz")
"""Suffixes of masks in a folder. Other files in it are ignored, such as the dataset.json of nnU-Net."""


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

    def read(self, name: str) -> NDArray[np.bool_]:
        """Read the masks of one case, (2, H, W) bool, channels ("disc", "cup").

        Raises:
            DataError: as `read_files`.
        """
        return read_files(self.files[name], self.annotation, nested=self.nested)


def find_masks(where: Sequence[str], coding: Coding | Thresholds | None = None) -> dict[str, tuple[Path, ...]]:
    """Find the mask files of each case, by name.

    Args:
        where: one folder or pattern of coded masks, or two of binary masks, disc and cup.
        coding: the coding, if the user gave one; binary masks have none but thresholds.

    Raises:
        DataError: there is no mask, a case has two, or a disc or a cup lacks the other; the error lists all of them.
        UsageError: there are more than two places, or two and a coding that is no thresholds.
    """
    if len(where) > 2 or (len(where) == 2 and isinstance(coding, Coding)):
        raise UsageError(f"{', '.join(where)}: give one place, or two of binary masks, disc then cup, without a coding")
    problems = Problems()
    found = []
    for place in where:
        with problems.gather():
            found.append(_by_name(place))
    problems.refuse("problems with the files of masks")
    if len(found) == 1:
        return {name: (path,) for name, path in found[0].items()}
    discs, cups = found
    for name in sorted(discs.keys() - cups.keys()):
        problems.add(f"a disc without a cup in {where[1]}", discs[name])
    for name in sorted(cups.keys() - discs.keys()):
        problems.add(f"a cup without a disc in {where[0]}", cups[name])
    problems.refuse("binary masks without their other half")
    return {name: (discs[name], cups[name]) for name in discs}


def _by_name(place: str) -> dict[str, Path]:
    """The mask of each case in a folder or a pattern, by name."""
    if Path(place).is_dir():
        found = [(name, path) for name, path in Pattern(Path(place), "*").find() if _is_mask(path)]
        if not found:
            suffixes = ", ".join(MASKS)
            raise DataError(
                f"no mask in it ({suffixes}); a pattern names them otherwise, as {place}/{NAME}/seg.png", place
            )
    elif NAME in place or set(place) & set(WILDCARDS):
        pattern = Pattern(Path(), place)
        found = pattern.find()
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
            problems.add(f"a second mask of {name} beside {first}; leave one, or give a pattern", path)
    problems.refuse("cases with two masks")
    return by_name


def _is_mask(path: Path) -> bool:
    return path.name.lower().endswith(MASKS)


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
        folders = {files[0].parent for files in self.truths.files.values()}
        return any(in_phantom(folder) for folder in folders)

    def read(self, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Read prediction and truth of one case, (2, H, W) bool each.

        Raises:
            DataError: as `read_files`, or the two differ in size: nothing is resampled.
        """
        problems = Problems()
        with problems.gather():
            prediction = self.predictions.read(name)
        with problems.gather():
            truth = self.truths.read(name)
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
    progress: Progress = SILENT,
) -> MaskPairs:
    """Match predicted and true masks by the names of their cases; a file without a partner is reported and left out.

    Args:
        predictions: one or two folders or patterns, as in `find_masks`. A predicted disc may lack pixels of its cup.
        truths: the same for the true masks, in which the disc always includes the cup.
        prediction_coding: coding of the predictions; None: it is recognised.
        truth_coding: coding of the true masks; None: it is recognised.
        progress: gets a line for each recognised coding and each file without a partner.

    Raises:
        DataError: as `find_masks`, for both sides at once; there is no name in common; or as `settle_codings`.
        UsageError: as `find_masks`.
    """
    problems = Problems()
    found = []
    for where, coding in ((predictions, prediction_coding), (truths, truth_coding)):
        with problems.gather():
            found.append(find_masks(where, coding))
    problems.refuse("problems with the files of masks")
    predicted, true = found
    names = sorted(predicted.keys() & true.keys())
    if not names:
        one, other = next(iter(predicted)), next(iter(true))
        raise DataError(
            f"no name in common with {truths[0]} ('{one}' here, '{other}' there); "
            f"a pattern says which part of a path is the name, as {predictions[0]}/{NAME}_seg.png",
            predictions[0],
        )
    predicted_coding, true_coding = settle_codings(
        Side(predictions, [predicted[name] for name in names], prediction_coding, "--pred-coding"),
        Side(truths, [true[name] for name in names], truth_coding, "--truth-coding"),
    )
    if predicted_coding != prediction_coding:
        progress.line(f"coding of the predictions, as recognised: {predicted_coding}")
    if true_coding != truth_coding:
        progress.line(f"coding of the true masks, as recognised: {true_coding}")
    sides = ((predicted, true, "no true mask of that name, left out"), (true, predicted, "not predicted"))
    for here, there, reason in sides:
        for name, paths in here.items():
            if name not in there:
                progress.line(f"{paths[0]}: {reason}")
    return MaskPairs(
        MaskFiles(predicted, Annotation(predicted_coding), nested=False),
        MaskFiles(true, Annotation(true_coding), nested=True),
        tuple(names),
        tuple(name for name in true if name not in predicted),
    )


def find_truths(
    where: Sequence[str],
    names: Container[str],
    *,
    coding: Coding | Thresholds | None = None,
    option: str = "--truth-coding",
    progress: Progress = SILENT,
) -> MaskFiles:
    """Find the true masks of some photographs and settle their coding.

    Args:
        where: one or two folders or patterns, as in `find_masks`.
        names: the names of the photographs; masks of other names are not read.
        coding: the coding, if the user gave one; None: it is recognised.
        option: the command's option for the coding, for messages.
        progress: told of a coding that was recognised and is not `dofe`.

    Raises:
        DataError: as `find_masks` or `settle_coding`, or no mask has the name of a photograph.
        UsageError: as `find_masks`.
    """
    found = {name: files for name, files in find_masks(where, coding).items() if name in names}
    if not found:
        raise DataError("holds no mask with the name of a photograph; give a folder of true masks", where[0])
    settled = settle_coding(Side(where, [*found.values()], coding, option))
    if settled is not None and settled not in (coding, DOFE):
        progress.line(f"coding of the true masks, as recognised: {settled}")
    return MaskFiles(found, Annotation(settled), nested=True)
