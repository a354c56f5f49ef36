"""Pairs of pictures that are to be told apart, in ten folds, from the lists that the data sets come with.

`read_pairs` knows a list by what it holds:

- LFW, `pairs.txt`: a first line `10 300`, then for each fold 300 lines `NAME 1 4`, the first and the fourth picture of
  one identity, and 300 lines `NAME 1 OTHER 4`. A picture is NAME/NAME_0001. (LFW's README.txt, section 3c.)
- CFP-FF, the folder `Protocol`: `Split/FF/01` to `10` hold `same.txt` and `diff.txt`, whose lines `12,34` number the
  lines `12 ../Data/Images/002/frontal/02.jpg` of `Pair_list_F.txt`. A picture is 002/frontal/02. (CFP's Readme.txt.)
- AgeDB-30, `04_FINAL_protocol_30_years.mat`: its variable `splits` holds for each fold two rows of pictures, one above
  the other, each with a name and an age. A picture is the name, and its identity what stands before the first
  underscore. (As InsightFace's converter of this file reads it.)
- CALFW, `pairs_CALFW.txt`: two lines `NAME_0001.jpg 3` for each pair; the number is the fold from 1 to 10, and 0 for
  two identities, whose folds are then ten equal parts of the list.
- three columns, `LEFT RIGHT FLAG`: two files and whether they show one identity (1) or not (0 or -1), in ten equal
  parts. So are the lists `*_pair.txt` of all four sets beside the TVConv paper's data.

Aligned pictures often have another suffix than the list says, so any suffix of a picture is taken. The files `.bin` of
InsightFace are pickles, which run what they hold when they are opened; they are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from faces import SUFFIXES
from numpy.typing import NDArray

from fundus_seg.datasets.matlab import variable
from fundus_seg.errors import DataError

FOLDS = 10


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures, in ten folds.

    Attributes:
        left, right: the files, (N,).
        same: (N,) whether both show one identity.
        fold: (N,) from 0 to 9.
        identity: (N,) of the left picture, as the list or the file's name tells it.
    """

    left: list[Path]
    right: list[Path]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]
    identity: list[str]


class _Pair(NamedTuple):
    left: str
    right: str
    same: bool
    fold: int
    identity: str


class _Line(NamedTuple):
    number: int
    fields: list[str]


def read_pairs(listed: Path, pictures: Path) -> Pairs:
    """The pairs of a list in one of the layouts above.

    Args:
        listed: the file of pairs; of CFP the folder `Protocol`.
        pictures: the folder in which the pictures are, under the names that the layout gives them.

    Raises:
        DataError: the list cannot be read, a line has another form, a picture is missing, or there are not ten folds.
    """
    if listed.is_dir():
        found = list(_of_cfp(listed))
    elif listed.suffix == ".mat":
        found = list(_of_agedb(listed))
    else:
        found = list(_of_lines(listed))
    folds = {pair.fold for pair in found}
    if folds != {*range(FOLDS)}:
        raise DataError(f"holds pairs of {len(folds)} folds; verification takes {FOLDS}", listed)
    files = {name: _file(pictures, name) for pair in found for name in pair[:2]}
    if missing := [name for name, path in files.items() if path is None]:
        more = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]} is not in {pictures}{more}; give the folder that holds the pictures", listed)
    left, right, same, fold, identity = zip(*found, strict=True)
    paths = [[path for name in names if (path := files[name])] for names in (left, right)]
    return Pairs(*paths, np.array(same), np.array(fold), list(identity))


def _of_lines(listed: Path) -> Iterator[_Pair]:
    lines = _lines(listed)
    first = lines[0].fields
    if len(first) <= 2 and all(field.isdecimal() for field in first):
        return _of_lfw(listed, lines)
    return _of_calfw(listed, lines) if len(first) == 2 else _of_three_columns(listed, lines)


def _of_lfw(listed: Path, lines: list[_Line]) -> Iterator[_Pair]:
    (_, first), *rest = lines
    folds, of_a_kind = map(int, first) if len(first) == 2 else (1, int(first[0]))
    if len(rest) != 2 * folds * of_a_kind:
        told = f"folds {folds}, with {of_a_kind} pairs of one identity and {of_a_kind} of two each"
        raise DataError(f"its first line says {told}, but {len(rest)} pairs follow", listed)
    for place, (number, fields) in enumerate(rest):
        same = place // of_a_kind % 2 == 0
        match fields:
            case [name, one, two] if same and one.isdecimal() and two.isdecimal():
                other = name
            case [name, one, other, two] if not same and one.isdecimal() and two.isdecimal():
                pass
            case _:
                raise _no_pair(listed, number, fields, "NAME 1 4" if same else "NAME 1 OTHER 4")
        left, right = (f"{who}/{who}_{int(which):04d}" for who, which in ((name, one), (other, two)))
        yield _Pair(left, right, same, place // (2 * of_a_kind), name)


def _of_calfw(listed: Path, lines: list[_Line]) -> Iterator[_Pair]:
    if len(lines) % 2:
        raise DataError("its last pair lacks a line: each pair has two", listed)
    read: list[tuple[str, str, int]] = []
    for (number, one), (_, two) in zip(lines[::2], lines[1::2], strict=True):
        match one, two:
            case [left, fold], [right, again] if fold == again and fold.isdecimal() and int(fold) <= FOLDS:
                read.append((left, right, int(fold)))
            case _:
                raise _no_pair(listed, number, [*one, *two], "NAME_0001.jpg 3, twice with the same number")
    others = sum(not fold for *_, fold in read)
    before = 0
    for left, right, fold in read:
        number = fold - 1 if fold else _part(listed, before, others)
        before += not fold
        yield _Pair(left, right, fold > 0, number, left.rpartition("_")[0])


def _of_three_columns(listed: Path, lines: list[_Line]) -> Iterator[_Pair]:
    for place, (number, fields) in enumerate(lines):
        match fields:
            case [left, right, "1" | "0" | "-1" as said]:
                folder, _, name = left.rpartition("/")
                yield _Pair(left, right, said == "1", _part(listed, place, len(lines)), folder or name)
            case _:
                raise _no_pair(listed, number, fields, "LEFT RIGHT 1")


def _of_cfp(protocol: Path) -> Iterator[_Pair]:
    pictures: dict[str, str] = {}
    for number, fields in _lines(protocol / "Pair_list_F.txt"):
        if len(fields) != 2:
            raise DataError("not a number and a picture", protocol / "Pair_list_F.txt", number)
        pictures[fields[0]] = "/".join(fields[1].split("/")[-3:])
    for fold in range(FOLDS):
        for same in (True, False):
            listed = protocol / "Split" / "FF" / f"{fold + 1:02d}" / ("same.txt" if same else "diff.txt")
            for number, fields in _lines(listed):
                match "".join(fields).split(","):
                    case [one, two] if one in pictures and two in pictures:
                        left = pictures[one]
                        yield _Pair(left, pictures[two], same, fold, left.partition("/")[0])
                    case _:
                        raise _no_pair(listed, number, fields, "12,34, lines of Pair_list_F.txt")


def _of_agedb(listed: Path) -> Iterator[_Pair]:
    splits = variable(listed, "splits")
    try:
        for fold, split in enumerate(splits):  # type: ignore[arg-type]  # None raises a TypeError
            above, below = ([str(cell[0, 0][0][0]) for cell in row] for row in split[0][0, 0][0])
            for left, right in zip(above, below, strict=True):
                one, two = (name.partition("_")[0] for name in (left, right))
                yield _Pair(left, right, one == two, fold, one)
    except (IndexError, TypeError, ValueError) as error:
        raise DataError("its variable `splits` is not ten cells with two rows of pictures each", listed) from error


def _part(listed: Path, place: int, of: int) -> int:
    """Which of ten equal parts of `of` pairs holds the one at `place`."""
    if of % FOLDS:
        raise DataError(f"{of} pairs make no {FOLDS} equal folds", listed)
    return place // (of // FOLDS)


def _lines(path: Path) -> list[_Line]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "no list of pairs that can be read; name a text file in UTF-8, or CFP's folder Protocol", path
        ) from error
    lines = [_Line(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError("holds no pairs", path)
    return lines


def _no_pair(listed: Path, number: int, fields: list[str], form: str) -> DataError:
    return DataError(f"'{' '.join(fields)}' is no pair; here it has the form {form}", listed, number)


def _file(pictures: Path, name: str) -> Path | None:
    """The picture of a name with or without a suffix, whatever suffix it has; None where there is none."""
    stem = name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
    return next((path for suffix in ("", *SUFFIXES) if (path := pictures / f"{stem}{suffix}").is_file()), None)
