"""Pictures of faces, aligned and of equal size: a folder for each identity."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fundus_seg.data.io import read_image
from fundus_seg.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


class Identities(Dataset[tuple[Tensor, int]]):
    """The pictures of a folder that holds a folder for each identity.

    An item is a picture (3, side, side) in [-1, 1] and the number of its identity.

    Args:
        root: the folder of folders.
        side: of the pictures in pixels.

    Raises:
        DataError: there is no such folder, it holds fewer than two identities, or one has fewer than two pictures.
    """

    def __init__(self, root: Path, side: int) -> None:
        if not root.is_dir():
            raise DataError("no such folder; it should hold a folder of pictures for each identity", root)
        self.side = side
        of = {folder: _pictures(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
        if len(of) < 2:
            raise DataError(f"folders in it: {len(of)}; put the pictures of each identity into one of its own", root)
        if few := [folder.name for folder, pictures in of.items() if len(pictures) < 2]:
            raise DataError(
                f"{len(few)} of {len(of)} identities have fewer than two pictures, the first is {few[0]}; "
                "they teach no likeness: move them elsewhere",
                root,
            )
        self.identities = len(of)
        self.files = [(path, number) for number, pictures in enumerate(of.values()) for path in pictures]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, number = self.files[index]
        return read_picture(path, self.side), number


def read_picture(path: Path, side: int) -> Tensor:
    """A picture (3, side, side) in [-1, 1].

    Raises:
        DataError: it cannot be read, or has another size.
    """
    pixels = read_image(path)
    height, width, _ = pixels.shape
    if (height, width) != (side, side):
        raise DataError(f"{width}x{height} pixels, not {side}x{side}; align the faces, or say --side", path)
    return torch.tensor(pixels).permute(2, 0, 1).float() / 127.5 - 1


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
