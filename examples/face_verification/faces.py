"""Pictures of faces: a folder for each identity, and lists of pairs that are to be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

FOLDS = 10
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp"}


class Identities(Dataset[tuple[Tensor, int]]):
    """The pictures of a folder that holds a folder for each identity, aligned and of equal size.

    An item is a picture (3, H, W) in [-1, 1] and the number of its identity.

    Raises:
        ValueError: the folder holds fewer than two identities.
    """

    def __init__(self, root: Path) -> None:
        folders = sorted(path for path in root.iterdir() if path.is_dir())
        self.identities = len(folders)
        self.files = [
            (path, number)
            for number, folder in enumerate(folders)
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in _PICTURES
        ]
        if self.identities < 2:
            raise ValueError(f"{root}: holds {self.identities} folders: put the pictures of each identity into one.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, number = self.files[index]
        return read_picture(path), number


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures, in ten folds.

    Attributes:
        left, right: the files, (N,).
        same: (N,) whether both show one identity.
        fold: (N,) from 0 to 9.
    """

    left: list[Path]
    right: list[Path]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]


def read_pairs(listed: Path, pictures: Path) -> Pairs:
    """The pairs of a file in one of two layouts, in which folds follow one another.

    LFW's `pairs.txt`: a first line `10 300`; then `NAME 1 4` for the first and the fourth picture of one identity and
    `NAME 1 OTHER 4` for those of two. The picture is NAME/NAME_0001 with the suffix that is there. In the other layout,
    that of the files `*_pair.txt` beside the TVConv paper's data, a line is `LEFT RIGHT FLAG`: two files and whether
    they show one identity (1) or not (0 or -1).

    Args:
        listed: the file of pairs.
        pictures: the folder in which they are.

    Raises:
        ValueError: a line has another form, a picture is missing, or the pairs do not make ten equal folds.
    """
    left, right, same = [], [], []
    lines = [line.split() for line in listed.read_text("utf8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{listed}: holds no pairs.")
    of_lfw = len(lines[0]) <= 2
    for number, line in enumerate(lines[of_lfw:], 1 + of_lfw):
        match of_lfw, line:
            case True, [name, first, second]:
                found, flag = [(name, first), (name, second)], True
            case True, [name, first, other, second]:
                found, flag = [(name, first), (other, second)], False
            case False, [first, second, "1" | "0" | "-1" as said]:
                found, flag = [first, second], said == "1"
            case _:
                raise ValueError(f"{listed}:{number}: '{' '.join(line)}' is no pair.")
        one, two = (_numbered(pictures, *each) if of_lfw else pictures / each for each in found)
        left.append(one)
        right.append(two)
        same.append(flag)
    for path in {*left, *right}:
        if not path.is_file():
            raise ValueError(f"{listed}: names {path}, which is not there.")
    if not same or len(same) % FOLDS:
        raise ValueError(f"{listed}: holds {len(same)} pairs, which make no {FOLDS} equal folds.")
    fold = np.repeat(np.arange(FOLDS), len(same) // FOLDS)
    return Pairs(left, right, np.array(same), fold)


def read_picture(path: Path) -> Tensor:
    """A picture (3, H, W) in [-1, 1]."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def _numbered(pictures: Path, name: str, number: str) -> Path:
    stem = pictures / name / f"{name}_{int(number):04d}"
    return next((stem.with_suffix(suffix) for suffix in sorted(_PICTURES) if stem.with_suffix(suffix).is_file()), stem)
