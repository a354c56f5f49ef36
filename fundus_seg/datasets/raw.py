"""The files of a download: of folders, zip and tar archives, archives in these, or several of them.

Archives are untrusted (`archives.py`). What a data set needs is unpacked into a scratch folder, under numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fundus_seg.data.listing import SPECIAL, Skipped, entries, files_below, kind_of
from fundus_seg.data.names import key, suffix_of
from fundus_seg.datasets.archives import ARCHIVES, MOST_FILES, UNREADABLE, Failed, is_archive, open_archive
from fundus_seg.errors import DataError, Problems
from fundus_seg.progress import Advance

MOST_BYTES, MOST_UNPACKED = 1 << 29, 1 << 36
"""Bytes of one file that is unpacked, and of all."""
MOST_NESTED_RATIO, FREE = 20, 1 << 30
"""How many times its packed size an archive in an archive may have, if it has more bytes than `FREE`."""
DEEPEST = 3
"""How many archives may lie in each other."""

_ARCHIVE = re.compile("(?:" + "|".join(map(re.escape, ARCHIVES)) + ")(?=/)", re.IGNORECASE)
_NOISE = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class RawFile:
    """A file of a download.

    Attributes:
        name: its path from the folder or archive that was given, that one's own name included, with `/` between folders
            and into archives: `REFUGE2.zip/REFUGE2/train/images/g0001.jpg`. Bytes that are not UTF-8 are written out.
        shown: the same path behind that of the folder or archive, as the user gave it: for messages.
        size: its bytes, as its archive says; 0 of a file that lies in a folder.
    """

    name: str
    shown: str
    size: int
    _source: _Source = field(repr=False)
    _place: int = field(repr=False)

    @property
    def path(self) -> str:
        """The name with archives as folders: `Train.zip` is `Train`, whether or not its files lie in a folder Train."""
        return _ARCHIVE.sub("", self.name)


def name_of_source(path: Path) -> str:
    """What a folder or file that was given is called: as it was given, so a link keeps its own name."""
    return key(path.name if path.name.strip(".") else Path(os.path.realpath(path)).name)


class _Source(Protocol):
    """What holds files: a folder or an archive."""

    def unpack(self, wanted: Mapping[int, Path], failed: Failed) -> Iterator[tuple[int, Path]]:
        """Where each file at some places lies; `wanted` says where to write it if it lies in an archive."""
        ...


class Raw:
    """The files of a download.

    Attributes:
        files: all files but those that systems leave behind (`__MACOSX`, `._*`, `Thumbs.db`), in the order of the paths
            that were given and sorted within each.
        skipped: links, devices and archives in formats that cannot be read.
    """

    def __init__(self, paths: Sequence[Path], scratch: Path, *, written: Collection[Path] = ()) -> None:
        """List the files.

        Args:
            paths: folders, archives and single files.
            scratch: an empty folder that archives are unpacked into.
            written: folders that are passed over, since the caller has written them.

        Raises:
            DataError: a path does not exist or cannot be read; an archive is damaged, or breaks a bound.
        """
        self.files: list[RawFile] = []
        self.skipped: list[Skipped] = []
        self._scratch = scratch
        self._written = [Path(os.path.realpath(folder)) for folder in written]
        self._number = self._unpacked = 0
        self._paths: dict[RawFile, Path] = {}
        for path in {os.path.realpath(path): path for path in paths}.values():
            kind = kind_of(path)
            name = name_of_source(path)
            if kind == "folder":
                self._add_folder(path, name)
            elif not path.is_file():
                raise DataError("no such folder or archive; give what you downloaded, or its unpacked folder", path)
            elif suffix_of(path.name) in UNREADABLE:
                raise DataError(f"{suffix_of(path.name)} files cannot be read: unpack it, and give the folder", path)
            else:
                self._add_file(path, name)

    def fetch(self, files: Iterable[RawFile], problems: Problems, *, advance: Advance = lambda: None) -> None:
        """Unpack files that lie in archives, so that `path` knows them; those that are damaged become problems.

        Args:
            files: the files.
            problems: gets what is wrong with them.
            advance: is called after each file.

        Raises:
            DataError: they have more than `MOST_UNPACKED` bytes.
        """
        by_source: dict[_Source, dict[int, RawFile]] = {}
        for file in dict.fromkeys(files):
            if file in self._paths:
                continue
            if file.size > MOST_BYTES:
                problems.add(f"{file.size} bytes, more than {MOST_BYTES}; unpack it, and check what it is", file.shown)
                continue
            self._unpacked += file.size
            if self._unpacked > MOST_UNPACKED:
                raise DataError(
                    f"more than {MOST_UNPACKED >> 30} GiB to unpack; unpack it, and give the folder", file.shown
                )
            by_source.setdefault(file._source, {})[file._place] = file
        for source, wanted in by_source.items():
            targets = {place: self._target(file) for place, file in wanted.items()}

            def failed(place: int, why: str, wanted: Mapping[int, RawFile] = wanted) -> None:
                problems.add(f"cannot be unpacked ({why}); download it again", wanted[place].shown)

            for place, path in source.unpack(targets, failed):
                self._paths[wanted[place]] = path
                advance()

    def path(self, file: RawFile) -> Path | None:
        """Where a file lies that was fetched; None if it could not be unpacked."""
        return self._paths.get(file)

    def release(self, file: RawFile) -> None:
        """Delete a file that was unpacked, once nobody reads it any more."""
        path = self._paths.get(file)
        if path is not None and path.parent == self._scratch:
            path.unlink(missing_ok=True)

    def _target(self, file: RawFile) -> Path:
        self._number += 1
        return self._scratch / f"{self._number}{suffix_of(file.name)}"

    def _add_folder(self, folder: Path, name: str) -> None:
        entries(folder)  # raises where the folder cannot be listed
        source = _Plain()
        for path in sorted(files_below(folder)):
            below = path.relative_to(folder).as_posix()
            real = Path(os.path.realpath(path))
            if _is_noise(below) or any(real.is_relative_to(written) for written in self._written):
                continue
            if below.lower().endswith(ARCHIVES):
                self._add_archive(path, f"{name}/{below}", str(path), 1)
            elif suffix_of(below) in UNREADABLE:
                self._skip(str(path))
            else:
                self._add(_file(f"{name}/{below}", str(path), 0, source, source.add(path)))

    def _add_file(self, path: Path, name: str) -> None:
        if name.lower().endswith(ARCHIVES) or (suffix_of(name) != ".xlsx" and is_archive(path)):
            self._add_archive(path, name, str(path), 1)
        else:
            source = _Plain()
            self._add(_file(name, str(path), 0, source, source.add(path)))

    def _add(self, file: RawFile) -> None:
        self.files.append(file)
        if len(self.files) > MOST_FILES:
            raise DataError(f"more than {MOST_FILES} files; give the download of this data set alone", file.shown)

    def _skip(self, shown: str, reason: str = "") -> None:
        """Leave a file out; without a reason, it is an archive of a format that cannot be read."""
        fix = "" if reason else "unpack them"
        self.skipped.append(Skipped(Path(shown), reason or f"{suffix_of(shown)} files cannot be read", fix))

    def _add_archive(self, path: Path, name: str, shown: str, depth: int) -> None:
        """Add the files of an archive, and of the archives in it."""
        archive, members = open_archive(path, shown)
        for member in members:
            file = _file(f"{name}/{member.name}", f"{shown}/{member.name}", member.size, archive, member.place)
            if _is_noise(member.name):
                continue
            if not member.regular:
                self._skip(file.shown, SPECIAL)
            elif suffix_of(member.name) in UNREADABLE:
                self._skip(file.shown)
            elif not member.name.lower().endswith(ARCHIVES):
                self._add(file)
            elif depth == DEEPEST:
                raise DataError(f"more than {DEEPEST} archives in each other; unpack them first", file.shown)
            elif member.size > max(FREE, MOST_NESTED_RATIO * member.packed):
                raise DataError("an archive that is packed too well to be one; nothing was unpacked", file.shown)
            else:
                self._add_nested(file, depth + 1)

    def _add_nested(self, file: RawFile, depth: int) -> None:
        """Unpack an archive that lies in an archive, and add its files."""
        target = self._target(file)
        problems = Problems()
        list(file._source.unpack({file._place: target}, lambda _, why: problems.add(f"damaged ({why})", file.shown)))
        problems.refuse("archives are damaged")
        self._add_archive(target, file.name, file.shown, depth)


def _file(name: str, shown: str, size: int, source: _Source, place: int) -> RawFile:
    """A file; its names become texts that any table can hold."""
    return RawFile(key(name), key(shown), size, source, place)


def _is_noise(name: str) -> bool:
    """Whether a file is left behind by systems: macOS' copies, Windows' thumbnails and marks of downloads.

    Args:
        name: its path below the folder or in the archive that was given.
    """
    parts = name.lower().split("/")
    hidden = any(part.startswith(".") for part in parts)
    return hidden or "__macosx" in parts or parts[-1] in _NOISE or parts[-1].endswith(":zone.identifier")


class _Plain:
    """Files that lie in folders."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def add(self, path: Path) -> int:
        self._paths.append(path)
        return len(self._paths) - 1

    def unpack(self, wanted: Mapping[int, Path], failed: Failed) -> Iterator[tuple[int, Path]]:
        return ((place, self._paths[place]) for place in wanted)
