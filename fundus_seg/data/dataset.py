"""Read cases into memory: a photograph with its two masks, at its own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import Annotation, merged
from fundus_seg.data.files import Case, Split
from fundus_seg.data.io import read_binary_mask, read_image, read_mask
from fundus_seg.data.layout import DataRoot, open_root
from fundus_seg.errors import DataError, Problems


@dataclass(frozen=True)
class Sample:
    """One case in memory: image (H, W, 3) uint8, masks (2, H, W) bool with channels ("disc", "cup")."""

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def read_sample(case: Case) -> Sample:
    """Read the photograph and the masks of one case.

    Raises:
        DataError: a file cannot be read, or photograph and mask differ in size.
    """
    problems = Problems()
    with problems.gather():
        image = read_image(case.image)
    with problems.gather():
        masks = read_masks(case)
    problems.refuse(f"files of {case.name} cannot be used")
    return join(case, image, masks)


def join(case: Case, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Sample:
    """Make the sample of a case from its photograph (H, W, 3) and its masks (2, H, W).

    Raises:
        DataError: photograph and masks differ in size.
    """
    if image.shape[:2] != masks.shape[1:]:
        sizes = f"{frame_text(masks[0])} pixels, but its photograph has {frame_text(image)}"
        raise DataError(sizes, case.mask)
    return Sample(case.name, image, masks)


def read_masks(case: Case) -> NDArray[np.bool_]:
    """Read the masks of one case, (2, H, W) bool, channels ("disc", "cup"), and merge those of several annotators.

    The disc of two binary files is the union of both, since a disc includes its cup.

    Raises:
        DataError: a file cannot be read, is not in the case's coding, or differs in size from the others.
    """
    problems = Problems()
    by_annotator: list[NDArray[np.bool_]] = []
    for files in case.masks:
        with problems.gather():
            by_annotator.append(read_files(files, case.annotation))
    problems.refuse(f"masks of {case.name} cannot be used")
    for files, masks in zip(case.masks, by_annotator, strict=True):
        if masks.shape != by_annotator[0].shape:
            sizes = f"{frame_text(masks[0])} pixels, but {case.mask} has {frame_text(by_annotator[0][0])}"
            raise DataError(sizes, files[0])
    return merged(by_annotator, case.annotation.merge)


def read_files(files: Sequence[Path], annotation: Annotation, *, nested: bool = True) -> NDArray[np.bool_]:
    """Read the masks (2, H, W) bool of one coded file, or of two binary files, disc and cup.

    Args:
        files: one file or two.
        annotation: their coding; the merge is not used.
        nested: whether the disc of two binary files is the union of both. If not, the disc is as its file shows it,
            and may lack pixels of the cup.

    Raises:
        DataError: a file cannot be read, is not in the coding, or the two differ in size.
    """
    if annotation.coding is not None:
        return read_mask(files[0], annotation.coding)
    disc_file, cup_file = files
    disc, cup = read_binary_mask(disc_file), read_binary_mask(cup_file)
    if disc.shape != cup.shape:
        raise DataError(f"{frame_text(cup)} pixels, but {disc_file} has {frame_text(disc)}", cup_file)
    return np.stack([disc | cup if nested else disc, cup])


def frame_text(pixels: NDArray[np.generic]) -> str:
    """The size of an array (H, W, ...) for messages: width x height."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


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
