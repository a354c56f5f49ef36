"""Parts of the photographs for several machines that write into one folder, which their file system shares.

Shard i of n has the photographs whose names have a hash that is i - 1 modulo n, so that no photograph moves when others
are added. Its masks lie with those of all others. Its table, its record and its lease lie in `shards/i-of-n`, until the
last one that ends, or any later command, joins the tables into one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fundus_seg.data.names import name_of
from fundus_seg.errors import BusyError, UsageError
from fundus_seg.inference.output import Table
from fundus_seg.runs.lease import holder

_FOLDER = "shards"


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that a text such as `3/8` names.

        Raises:
            UsageError: it names none.
        """
        if found := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text):
            number, count = map(int, found.groups())
            if 1 <= number <= count:
                return cls(number, count)
        raise UsageError(f"--shard {text}: write I/N with I from 1 to N, as --shard 3/8 on the third of eight machines")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"shard {self}"

    def holds(self, name: str) -> bool:
        """Whether the photograph of this name belongs to the shard."""
        digest = hashlib.sha256(name.encode("utf8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def folder(self, out: Path) -> Path:
        """Where its table lies."""
        return out / _FOLDER / f"{self.number}-of-{self.count}"


def done_rows(whole: Table) -> dict[str, Mapping[str, str]] | None:
    """The rows of all that is done, by the name of the photograph; None where there is neither table nor record.

    Args:
        whole: the table of the output folder; those of its shards are read as well, and prevail over it.

    Raises:
        RunError: as `Table.rows`, for any of them.
    """
    tables = [whole, *(replace(whole, folder=folder) for _, folder in _shards(whole.folder))]
    found = [table.rows() for table in tables]
    if all(rows is None for rows in found):
        return None
    return {name_of(Path(row["photograph"])): row for rows in found for row in rows or ()}


def remove_shards(out: Path) -> None:
    """Remove the tables of shards, which are joined."""
    shutil.rmtree(out / _FOLDER, ignore_errors=True)


def refuse_others(out: Path, shard: Shard | None) -> None:
    """Refuse to write while another command does whose photographs may be the same.

    Args:
        out: the folder of all.
        shard: what this command does; None: all photographs.

    Raises:
        BusyError: another command is at work: on all photographs, on a shard while this one does all, or on a shard of
            another number of them.
    """
    if shard and (other := holder(out)):
        raise BusyError(f"{out}: process {other} is writing here without --shard; wait, or stop it")
    for there, folder in _shards(out):
        if (shard is None or there.count != shard.count) and (other := holder(folder)):
            raise BusyError(f"{out}: process {other} is writing shard {there} here; wait, or stop it")


def _shards(out: Path) -> Iterator[tuple[Shard, Path]]:
    """The shards that have a folder, those that were written to last at the end."""
    folders = [path for path in (out / _FOLDER).glob("*-of-*") if path.is_dir()]
    for folder in sorted(folders, key=lambda path: (path.stat().st_mtime, path.name)):
        if found := re.fullmatch(r"([0-9]+)-of-([0-9]+)", folder.name):
            yield Shard(int(found[1]), int(found[2])), folder
