"""Samples: a photograph with its two masks, at its own size."""

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
    """Read one case.

    Raises:
        DataError: unreadable, or photograph and mask of different sizes.
    """
    problems = Problems()
    with problems.gather():
        image = read_image(case.image)
    with problems.gather():
        masks = read_masks(case)
    problems.refuse(f"files of {case.name} cannot be used")
    return join(case, image, masks)


def join(case: Case, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Sample:
    """The sample of a photograph and its masks.

    Raises:
        DataError: they have different sizes.
    """
    if image.shape[:2] != masks.shape[1:]:
        raise DataError(f"{case.mask}: {size(masks[0])} pixels, but its photograph has {size(image)}")
    return Sample(case.name, image, masks)


def read_masks(case: Case) -> NDArray[np.bool_]:
    """The masks of one case as (2, H, W) bool, channels ("disc", "cup"), its annotators' merged.

    Of two binary files, the disc is what either covers, since a disc includes its cup.

    Raises:
        DataError: unreadable, not of the case's coding, or masks of different sizes.
    """
    problems = Problems()
    by_annotator: list[NDArray[np.bool_]] = []
    for files in case.masks:
        with problems.gather():
            by_annotator.append(read_files(files, case.annotation))
    problems.refuse(f"masks of {case.name} cannot be used")
    for files, masks in zip(case.masks, by_annotator, strict=True):
        if masks.shape != by_annotator[0].shape:
            raise DataError(f"{files[0]}: {size(masks[0])} pixels, but {case.mask} has {size(by_annotator[0][0])}")
    return merged(by_annotator, case.annotation.merge)


def read_files(files: Sequence[Path], annotation: Annotation, *, nested: bool = True) -> NDArray[np.bool_]:
    """The masks (2, H, W) of one coded file, or of two binary ones, disc and cup.

    Of two, the disc is what either covers, unless `nested` is false: then it may lack pixels of the cup.

    Raises:
        DataError: unreadable, not of the coding, or of different sizes.
    """
    if annotation.coding is not None:
        return read_mask(files[0], annotation.coding)
    disc_file, cup_file = files
    disc, cup = read_binary_mask(disc_file), read_binary_mask(cup_file)
    if disc.shape != cup.shape:
        raise DataError(f"{cup_file}: {size(cup)} pixels, but {disc_file} has {size(disc)}")
    return np.stack([disc | cup if nested else disc, cup])


def size(pixels: NDArray[np.generic]) -> str:
    """Width x height of an array (H, W, ...), for messages."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


class FundusDataset:
    """The cases of one split of one domain, in order of their names; `dataset[i]` reads the files.

    Args:
        root: a data root, its folder or YAML file, or "phantom".
        domain: one of the root's, as "A".
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
