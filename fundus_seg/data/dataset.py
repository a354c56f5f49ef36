"""Samples: a photograph with its two masks, at its own size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.io import read_image, read_mask
from fundus_seg.data.layout import Case, DataRoot, Split, open_root
from fundus_seg.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One case in memory: image (H, W, 3) uint8, masks (2, H, W) bool with channels ("disc", "cup")."""

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def read_sample(case: Case, *, coding: str = "dofe") -> Sample:
    """Read one case.

    Raises:
        DataError: unreadable, or photograph and mask of different sizes.
    """
    return join(case, read_image(case.image), read_mask(case.mask, coding))


def join(case: Case, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Sample:
    """The sample of a photograph and its masks.

    Raises:
        DataError: they have different sizes.
    """
    if image.shape[:2] != masks.shape[1:]:
        (h, w), (mask_h, mask_w) = image.shape[:2], masks.shape[1:]
        raise DataError(f"{case.mask}: {mask_w}x{mask_h} pixels, but its photograph has {w}x{h}")
    return Sample(case.name, image, masks)


class FundusDataset:
    """The cases of one split of one domain, in order of their names; `dataset[i]` reads the files.

    Args:
        root: a data root, its folder, or "phantom".
        domain: "A" to "D".
        split: "train" or "test".
        coding: how masks are coded.

    Raises:
        DataError, UsageError: as `open_root`, `DataRoot.cases` and `read_sample`.
    """

    def __init__(self, root: DataRoot | str | Path, domain: str, split: Split, *, coding: str = "dofe") -> None:
        data_root = root if isinstance(root, DataRoot) else open_root(root)
        self.cases = data_root.cases(domain, split)
        self.coding = coding

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(self.cases[index], coding=self.coding)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
