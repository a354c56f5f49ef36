"""Masks of anybody's making, without photographs: which files they are, whose, and how they are coded.

A folder holds a file for each case, `NAME.png` or `NAME.nii.gz`; a pattern says where else they lie, as
`masks/{name}/seg.nii.gz`. Two folders or patterns are two binary files for each case, disc and cup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import Annotation, Coding
from fundus_seg.data.dataset import read_files, size
from fundus_seg.data.files import NAME, WILDCARDS, Pattern
from fundus_seg.data.layout import in_phantom
from fundus_seg.data.recognise import Side, settle_codings
from fundus_seg.errors import DataError, Problems, UsageError
from fundus_seg.progress import SILENT, Progress

MASKS = (".png", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz")
"""What a folder's masks end with; its other files, as nnU-Net's dataset.json, are nobody's masks."""


@dataclass(frozen=True)
class MaskFiles:
    """The masks of some cases.

    Attributes:
        files: by the case's name one coded file, or two binary ones, disc and cup.
        annotation: how they become two masks.
        nested: whether a disc of two binary files is made to cover its cup.
    """

    files: Mapping[str, tuple[Path, ...]]
    annotation: Annotation
    nested: bool

    def read(self, name: str) -> NDArray[np.bool_]:
        """The masks of one case, (2, H, W), channels ("disc", "cup").

        Raises:
            DataError: as `read_files`.
        """
        return read_files(self.files[name], self.annotation, nested=self.nested)


def find_masks(where: Sequence[str], coding: Coding | None = None) -> dict[str, tuple[Path, ...]]:
    """By the case's name the one mask in a folder or pattern; of two places, the masks of disc and of cup.

    Raises:
        DataError: no mask, two for a case, a disc without a cup or a cup without a disc, all of them listed.
        UsageError: more than two places, or a coding of two binary files.
    """
    if len(where) > 2 or (len(where) == 2 and coding is not None):
        raise UsageError(f"{', '.join(where)}: give one place, or two of binary masks, disc then cup, without a coding")
    problems = Problems()
    sides = []
    for place in where:
        with problems.gather():
            sides.append(_by_name(place))
    problems.refuse("problems with the files of masks")
    if len(sides) == 1:
        return {name: (path,) for name, path in sides[0].items()}
    discs, cups = sides
    problems.lines += [f"{discs[name]}: a disc without a cup in {where[1]}" for name in discs if name not in cups]
    problems.lines += [f"{cups[name]}: a cup without a disc in {where[0]}" for name in cups if name not in discs]
    problems.refuse("binary masks without their other half")
    return {name: (discs[name], cups[name]) for name in discs}


def _by_name(place: str) -> dict[str, Path]:
    """The mask of each case in a folder or a pattern."""
    if Path(place).is_dir():
        found = [(name, path) for name, path in Pattern(Path(place), "*").find() if _is_mask(path)]
        nothing = (
            f"{place}: no mask in it ({', '.join(MASKS)}); a pattern names them otherwise, as {place}/{NAME}/seg.png"
        )
    elif NAME in place or set(place) & set(WILDCARDS):
        pattern = Pattern(Path(), place)
        found, nothing = pattern.find(), pattern.nothing()
    else:
        raise DataError(f"{place}: no such folder; give a folder of masks, or a pattern as {place}/{NAME}.png")
    if not found:
        raise DataError(nothing)
    by_name: dict[str, Path] = {}
    problems = Problems()
    for name, path in found:
        if by_name.setdefault(name, path) != path:
            problems.lines.append(
                f"{path}: a second mask of {name} beside {by_name[name]}; leave one, or give a pattern"
            )
    problems.refuse("cases with two masks")
    return by_name


def _is_mask(path: Path) -> bool:
    return path.name.lower().endswith(MASKS)


@dataclass(frozen=True)
class MaskPairs:
    """Predicted and true masks of the same cases.

    Attributes:
        predictions: files and coding.
        truths: files and coding; they may be others.
        names: of the cases that have both, sorted.
        unpredicted: of those with a true mask alone.
    """

    predictions: MaskFiles
    truths: MaskFiles
    names: tuple[str, ...]
    unpredicted: tuple[str, ...]

    @property
    def phantom(self) -> bool:
        """Whether a true mask is of the phantom."""
        return any(in_phantom(folder) for folder in {files[0].parent for files in self.truths.files.values()})

    def read(self, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Prediction and truth of one case, (2, H, W) each.

        Raises:
            DataError: as `read_files`, or they differ in size: nothing is resampled.
        """
        problems = Problems()
        with problems.gather():
            prediction = self.predictions.read(name)
        with problems.gather():
            truth = self.truths.read(name)
        problems.refuse(f"masks of {name} cannot be used")
        if prediction.shape != truth.shape:
            raise DataError(
                f"{self.predictions.files[name][0]}: {size(prediction[0])} pixels, but its truth has {size(truth[0])} "
                f"({self.truths.files[name][0]}); export it at that size, nothing is resampled here"
            )
        return prediction, truth


def pair_masks(
    predictions: Sequence[str],
    truths: Sequence[str],
    *,
    prediction_coding: Coding | None = None,
    truth_coding: Coding | None = None,
    progress: Progress = SILENT,
) -> MaskPairs:
    """Match predicted and true masks by the names of their cases; those of one side alone are told and left out.

    Args:
        predictions: one or two folders or patterns, as in `find_masks`; a predicted disc may lack pixels of its cup.
        truths: the same; a true disc includes its cup.
        prediction_coding: None recognises it.
        truth_coding: the same.
        progress: where codings that were recognised and files without a partner are told.

    Raises:
        DataError: as `find_masks`, of both sides at once; no name in common; or as `settle_codings`.
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
            f"{predictions[0]}: no name in common with {truths[0]} ('{one}' here, '{other}' there); "
            f"a pattern says which part of a path is the name, as {predictions[0]}/{NAME}_seg.png"
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
