"""Read cases into memory: a photograph with its two masks, at its own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import Annotation, Thresholds, merged
from fundus_seg.data.files import Case, Split
from fundus_seg.data.io import Photograph, frame_text, read_binary_mask, read_mask, read_photograph
from fundus_seg.data.layout import DataRoot, open_root
from fundus_seg.data.nifti import is_nifti
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError, Problems


@dataclass(frozen=True)
class Sample:
    """One case in memory: image (H, W, 3) uint8, masks (2, H, W) bool with channels ("disc", "cup")."""

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


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
        masks = read_masks(case, witness)
    problems.refuse(f"files of {case.name} cannot be used")
    look(case, photograph, masks, witness or Witness())
    return Sample(case.name, photograph.pixels, masks)


def look(case: Case, photograph: Photograph | None, masks: NDArray[np.bool_], witness: Witness) -> None:
    """Let a witness look at the masks (2, H, W) of a case, and at how they lie on its photograph if that is there.

    Raises:
        SharedFaultError: as `check_fit`.
    """
    mixed = is_nifti(case.image) != is_nifti(case.mask)
    witness.look(f"{case.domain}/{case.split}", case.mask, masks, photograph, mixed=mixed)


def read_masks(case: Case, witness: Witness | None = None) -> NDArray[np.bool_]:
    """Read the masks of one case, (2, H, W) bool, channels ("disc", "cup"), and merge those of several annotators.

    The disc of two binary files is the union of both, since a disc includes its cup.

    Args:
        case: the case.
        witness: sees the masks of each annotator.

    Raises:
        DataError: a file cannot be read, is not in the case's coding, or differs in size from the others.
    """
    problems = Problems()
    by_annotator: list[NDArray[np.bool_]] = []
    for number, files in enumerate(case.masks):
        seen: NDArray[np.bool_] | DataError
        try:
            seen = read_files(files, case.annotation)
            by_annotator.append(nested(seen))
        except DataError as error:
            problems.found += error.problems
            seen = error
        if witness is not None:
            annotator = f", annotator {number + 1}" if len(case.masks) > 1 else ""
            witness.see(f"{case.domain}/{case.split}{annotator}", files, case.annotation, seen)
    problems.refuse(f"masks of {case.name} cannot be used")
    for files, masks in zip(case.masks, by_annotator, strict=True):
        if masks.shape != by_annotator[0].shape:
            sizes = f"{frame_text(masks[0])} pixels, but {case.mask} has {frame_text(by_annotator[0][0])}"
            raise DataError(sizes, files[0])
    return merged(by_annotator, case.annotation.merge)


def nested(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The masks (2, H, W) with the cup within the disc: the disc is the union of both."""
    return np.stack([masks[0] | masks[1], masks[1]])


def read_files(files: Sequence[Path], annotation: Annotation) -> NDArray[np.bool_]:
    """Read the masks (2, H, W) bool of one coded file, or of two binary files, disc and cup.

    The disc of two binary files is as its file shows it, and may lack pixels of the cup.

    Args:
        files: one file or two.
        annotation: their coding; the merge is not used.

    Raises:
        DataError: a file cannot be read, is not in the coding, or the two differ in size.
    """
    coding = annotation.coding
    if len(files) == 1 and coding is not None:
        return read_mask(files[0], coding)
    disc_file, cup_file = files
    limits = (coding.disc, coding.cup) if isinstance(coding, Thresholds) else (None, None)
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
