"""Read cases into memory: a photograph with its two masks, at its own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import Annotation, Merge, Thresholds, merged
from fundus_seg.data.files import Case, Split
from fundus_seg.data.io import Photograph, frame_text, read_binary_mask, read_mask, read_photograph
from fundus_seg.data.layout import DataRoot, open_root
from fundus_seg.data.nifti import is_nifti
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError, Problems

BOTH = (True, True)
"""Whether disc and cup are annotated: as nearly always."""


@dataclass(frozen=True)
class Truth:
    """The true masks of one case.

    Attributes:
        masks: (2, H, W) bool, channels ("disc", "cup"); False where a structure is not annotated.
        annotated: whether each structure is annotated. One that is annotated may still be empty.
        reader: who drew them; empty for the truth of all annotators together.
    """

    masks: NDArray[np.bool_]
    annotated: tuple[bool, bool] = BOTH
    reader: str = ""

    @property
    def told(self) -> NDArray[np.bool_]:
        """The masks of the structures that are annotated, (1 or 2, H, W)."""
        return self.masks[list(self.annotated)]


@dataclass(frozen=True)
class Sample:
    """One case in memory: image (H, W, 3) uint8, masks (2, H, W) bool with channels ("disc", "cup").

    `annotated` says, as that of `Truth`, whether each structure is annotated.
    """

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    annotated: tuple[bool, bool] = BOTH


def read_sample(case: Case, witness: Witness | None = None) -> Sample:
    """Read the photograph and the masks of one case.

    Args:
        case: the case.
        witness: sees the masks of each annotator, and how they lie on the photograph.

    Raises:
        DataError: a file cannot be read, or photograph and mask differ in size.
    """
    problems = Problems()
    with problems.gather():
        photograph = read_photograph(case.image)
    with problems.gather():
        truth = read_truth(case, witness)
    problems.refuse(f"files of {case.name} cannot be used")
    look(case, photograph, truth, witness or Witness())
    return Sample(case.name, photograph.pixels, truth.masks, truth.annotated)


def look(case: Case, photograph: Photograph | None, truth: Truth, witness: Witness) -> None:
    """Let a witness look at the true masks of a case, and at how they lie on its photograph if that is there.

    Raises:
        SharedFaultError: as `check_fit`.
    """
    mixed = is_nifti(case.image) != is_nifti(case.mask)
    _, cup = truth.annotated
    witness.look(f"{case.domain}/{case.split}", case.mask, truth.masks, photograph, mixed=mixed, cup_annotated=cup)


def read_truth(case: Case, witness: Witness | None = None) -> Truth:
    """Read the masks of one case, and merge those of several annotators.

    The disc of two binary files is the union of both, since a disc includes its cup. The cup is that of the annotators
    who annotated one.

    Args:
        case: the case.
        witness: sees the masks of each annotator.

    Raises:
        DataError: a file cannot be read, is not in the case's coding, or differs in size from the others.
    """
    problems = Problems()
    by_annotator: list[Truth] = []
    for number, files in enumerate(case.masks):
        seen: NDArray[np.bool_] | DataError
        cup = True
        try:
            seen = read_files(files, case.annotation)
            cup = cup_annotated(files, seen, case.annotation)
            by_annotator.append(Truth(nested(seen), (True, cup)))
        except DataError as error:
            problems.found += error.problems
            seen = error
        if witness is not None:
            annotator = f", annotator {number + 1}" if len(case.masks) > 1 else ""
            witness.see(f"{case.domain}/{case.split}{annotator}", files, case.annotation, seen, cup_annotated=cup)
    problems.refuse(f"masks of {case.name} cannot be used")
    _refuse_other_sizes(case.masks, by_annotator)
    return _merged(by_annotator, case.annotation.merge)


def read_readers(case: Case) -> list[Truth]:
    """The true masks of one case as each of its readers drew them.

    Raises:
        DataError: as `read_truth`.
    """
    found: list[Truth] = []
    problems = Problems()
    for reader, files in case.readers:
        with problems.gather():
            masks = read_files(files, case.annotation)
            found.append(Truth(nested(masks), (True, cup_annotated(files, masks, case.annotation)), reader))
    problems.refuse(f"masks of {case.name} cannot be used")
    _refuse_other_sizes([files for _, files in case.readers], found)
    return found


def cup_annotated(files: Sequence[Path], masks: NDArray[np.bool_], annotation: Annotation) -> bool:
    """Whether the cup of masks (2, H, W), as these files show them, is annotated."""
    empty = annotation.unannotated_cup == "empty" and not masks[1].any()
    return not (empty or annotation.disc_alone(files))


def _refuse_other_sizes(files: Sequence[Sequence[Path]], truths: Sequence[Truth]) -> None:
    """Raise a DataError if the masks of some annotators differ in size from those of the first."""
    for own, truth in zip(files, truths, strict=True):
        if truth.masks.shape != truths[0].masks.shape:
            sizes = f"{frame_text(truth.masks[0])} pixels, but {files[0][0]} has {frame_text(truths[0].masks[0])}"
            raise DataError(sizes, own[0])


def _merged(truths: Sequence[Truth], merge: Merge) -> Truth:
    """One truth of those of several annotators; a cup is that of the annotators who annotated one."""
    with_cup = [truth.masks[1] for truth in truths if truth.annotated[1]]
    if len(with_cup) == len(truths):
        return Truth(merged([truth.masks for truth in truths], merge))
    disc = merged([truth.masks[0] for truth in truths], merge)
    cup = merged(with_cup, merge) if with_cup else np.zeros_like(disc)
    return Truth(nested(np.stack([disc, cup])), (True, bool(with_cup)))


def nested(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The masks (2, H, W) with the cup within the disc: the disc is the union of both."""
    return np.stack([masks[0] | masks[1], masks[1]])


def read_files(files: Sequence[Path], annotation: Annotation) -> NDArray[np.bool_]:
    """Read the masks (2, H, W) bool of one coded file, or of two binary files, disc and cup.

    The disc of two binary files is as its file shows it, and may lack pixels of the cup. Beside a disc alone, whose cup
    is not annotated, the cup is empty.

    Args:
        files: one file or two.
        annotation: their coding; the merge is not used.

    Raises:
        DataError: a file cannot be read, is not in the coding, or the two differ in size.
    """
    coding = annotation.coding
    limits = (coding.disc, coding.cup) if isinstance(coding, Thresholds) else (None, None)
    if annotation.disc_alone(files):
        disc = read_binary_mask(files[0], limits[0])
        return np.stack([disc, np.zeros_like(disc)])
    if len(files) == 1 and coding is not None:
        return read_mask(files[0], coding)
    disc_file, cup_file = files
    disc, cup = (read_binary_mask(file, inside) for file, inside in zip(files, limits, strict=True))
    if disc.shape != cup.shape:
        raise DataError(f"{frame_text(cup)} pixels, but {disc_file} has {frame_text(disc)}", cup_file)
    return np.stack([disc, cup])


class FundusDataset:
    """The cases of one split of one domain, sorted by name, for looking at: `dataset[i]` reads the files of a case.

    Training does not use this class: it takes cases that were resized once (`cache.load_resized`) and draws them in
    `batches.DomainBatches`.

    Args:
        root: a data root, its folder or YAML file, or "phantom".
        domain: key of one of the root's domains: "A".
        split: "train" or "test".

    Raises:
        DataError, UsageError: as `open_root`, `DataRoot.cases` and `read_sample`.
    """

    def __init__(self, root: DataRoot | str | Path, domain: str, split: Split) -> None:
        data_root = root if isinstance(root, DataRoot) else open_root(root)
        self.cases = data_root.cases(domain, split)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(self.cases[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
