"""The files of a download: of folders, zip and tar archives, archives in these, or several of them.

Archives are untrusted. Nothing is written under a name from an archive: the files that a data set needs are unpacked
into a scratch folder under numbers, so no name, link or device can lead anywhere. A name that is absolute or climbs out
of its archive is refused; links and devices are left out. Number, size and compression are bounded, and a file's
declared size is never exceeded.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from fundus_seg.data.listing import SPECIAL, Skipped, entries, files_below, kind_of
from fundus_seg.data.names import suffix_of
from fundus_seg.errors import DataError, Problems, one_line

MOST_FILES = 100_000
"""Files of a download, in all."""
MOST_BYTES = 1 << 29
"""Bytes of one file that is unpacked."""
MOST_UNPACKED = 1 << 37
"""Bytes that are unpacked, or passed over in a compressed tar, in all."""
MOST_RATIO = 1100
"""How many times its packed size a file may have: deflate reaches 1032, and does so on masks."""
MOST_NESTED_RATIO, FREE = 20, 1 << 30
"""The same of an archive in an archive, which is packed already, if it has more bytes than `FREE`."""
DEEPEST = 3
"""How many archives may lie in each other."""

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
_UNREADABLE = (".rar", ".7z")
_DAMAGE = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError, zlib.error)
_NOISE_FOLDERS, _NOISE = ("__macosx",), ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class RawFile:
    """A file of a download.

    Attributes:
        name: its path from the folder or archive that was given, that one's own name included, with `/` between folders
            and into archives: `REFUGE2.zip/REFUGE2/train/images/g0001.jpg`.
        shown: the same path behind that of the folder or archive, as the user gave it: for messages.
        size: its bytes, as its archive says; 0 of a file that lies in a folder.
    """

    name: str
    shown: str
    size: int
    _source: _Source = field(repr=False)
    _place: int = field(repr=False)


class _Source(Protocol):
    """What holds files: a folder or an archive."""

    def unpack(self, wanted: Mapping[int, Path], failed: Callable[[int, str], None]) -> Mapping[int, Path]:
        """Where the files at some places lie then; `wanted` says where to write them if they lie in an archive."""
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
        for path in dict.fromkeys(paths):
            kind = kind_of(path)
            name = Path(os.path.realpath(path)).name
            if kind == "folder":
                self._add_folder(path, name)
            elif not path.is_file():
                raise DataError("no such folder or archive; give what you downloaded, or its unpacked folder", path)
            elif suffix_of(path.name) in _UNREADABLE:
                raise DataError(f"{suffix_of(path.name)} files cannot be read: unpack it, and give the folder", path)
            else:
                self._add_file(path, name)

    def fetch(self, files: Iterable[RawFile], problems: Problems) -> None:
        """Unpack files that lie in archives, so that `path` knows them; those that are damaged become problems."""
        by_source: dict[_Source, dict[int, RawFile]] = {}
        for file in files:
            if file.size > MOST_BYTES:
                problems.add(f"{file.size} bytes, more than {MOST_BYTES}; unpack it, and check what it is", file.shown)
            elif file not in self._paths:
                by_source.setdefault(file._source, {})[file._place] = file
        for source, wanted in by_source.items():
            targets = {place: self._target(file) for place, file in wanted.items()}

            def failed(place: int, why: str, wanted: Mapping[int, RawFile] = wanted) -> None:
                problems.add(f"cannot be unpacked ({why}); download it again", wanted[place].shown)

            for place, path in source.unpack(targets, failed).items():
                self._paths[wanted[place]] = path

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
            below = "/".join((name, *path.relative_to(folder).parts))
            real = Path(os.path.realpath(path))
            if _is_noise(below) or any(real.is_relative_to(written) for written in self._written):
                continue
            if below.lower().endswith(_ARCHIVES):
                self._add_archive(path, below, str(path), 1)
            elif suffix_of(below) in _UNREADABLE:
                self.skipped.append(Skipped(path, f"{suffix_of(below)} files cannot be read", "unpack them"))
            else:
                self._add(RawFile(below, str(path), 0, source, source.add(path)))

    def _add_file(self, path: Path, name: str) -> None:
        if name.lower().endswith(_ARCHIVES) or (suffix_of(name) != ".xlsx" and _is_archive(path)):
            self._add_archive(path, name, str(path), 1)
        else:
            source = _Plain()
            self._add(RawFile(name, str(path), 0, source, source.add(path)))

    def _add(self, file: RawFile) -> None:
        self.files.append(file)
        if len(self.files) > MOST_FILES:
            raise DataError(f"more than {MOST_FILES} files; give the download of this data set alone", file.shown)

    def _add_archive(self, path: Path, name: str, shown: str, depth: int) -> None:
        """Add the files of an archive, and of the archives in it."""
        try:
            archive: _Zip | _Tar = _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
            members = []
            for member in archive.members():
                members.append(member)
                self._bound(member, shown, len(members))
        except _DAMAGE as error:
            raise DataError(f"not a whole zip or tar archive ({one_line(error)}); download it again", shown) from error
        nested = []
        for member in sorted(members, key=lambda each: each.name):
            file = RawFile(f"{name}/{member.name}", f"{shown}/{member.name}", member.size, archive, member.place)
            if _is_noise(file.name):
                continue
            if not member.regular:
                self.skipped.append(Skipped(Path(file.shown), SPECIAL))
            elif member.name.lower().endswith(_ARCHIVES):
                if member.size > max(FREE, MOST_NESTED_RATIO * member.packed):
                    raise DataError("an archive that is packed too well to be one; nothing was unpacked", file.shown)
                nested.append(file)
            elif suffix_of(member.name) in _UNREADABLE:
                why = f"{suffix_of(member.name)} files cannot be read"
                self.skipped.append(Skipped(Path(file.shown), why, "unpack them"))
            else:
                self._add(file)
        for file in nested:
            if depth == DEEPEST:
                raise DataError(f"more than {DEEPEST} archives in each other; unpack them first", file.shown)
            target = self._target(file)
            problems = Problems()
            archive.unpack({file._place: target}, lambda _, why: problems.add(f"damaged ({why})", file.shown))  # noqa: B023
            problems.refuse("archives are damaged")
            self._add_archive(target, file.name, file.shown, depth + 1)

    def _bound(self, member: _Member, archive: str, count: int) -> None:
        """Refuse a member that breaks a bound, or whose name leads out of its archive."""
        place = f"{archive}/{member.name}"
        parts = member.name.split("/")
        if member.name.startswith("/") or ".." in parts or parts[0].endswith(":"):
            raise DataError("a name that leads out of its archive; nothing was unpacked", place)
        if count > MOST_FILES:
            raise DataError(f"more than {MOST_FILES} files in it; nothing was unpacked", archive)
        self._unpacked += member.size
        if self._unpacked > MOST_UNPACKED:
            raise DataError(f"it would unpack to more than {MOST_UNPACKED >> 30} GiB; nothing was unpacked", archive)
        if member.encrypted:
            raise DataError("encrypted; unpack the archive with its password, and give the folder", place)
        if member.size > MOST_RATIO * max(member.packed, 1):
            raise DataError(f"it would unpack to {member.size} bytes from {member.packed}; nothing was unpacked", place)


def _is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive by its content, whatever its name."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except _DAMAGE:
        return False


def _is_noise(name: str) -> bool:
    """Whether a file is left behind by systems: macOS' copies, Windows' thumbnails and marks of downloads."""
    *folders, file = name.lower().split("/")
    hidden = any(part.startswith(".") for part in (*folders, file))
    left = file in _NOISE or file.endswith((":zone.identifier", ".ds_store"))
    return hidden or left or any(folder in _NOISE_FOLDERS for folder in folders)


class _Plain:
    """Files that lie in folders."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def add(self, path: Path) -> int:
        self._paths.append(path)
        return len(self._paths) - 1

    def unpack(self, wanted: Mapping[int, Path], failed: Callable[[int, str], None]) -> Mapping[int, Path]:
        return {place: self._paths[place] for place in wanted}


@dataclass(frozen=True)
class _Member:
    """What an archive says of one of its files: place in it, name, sizes, and whether it is a regular file."""

    place: int
    name: str
    size: int
    packed: int
    regular: bool
    encrypted: bool = False


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[_Member]:
        with zipfile.ZipFile(self._path) as archive:
            for place, info in enumerate(archive.infolist()):
                if not info.is_dir():
                    mode = info.external_attr >> 16
                    regular = stat.S_ISREG(mode) or not stat.S_IFMT(mode)
                    name, packed = info.filename.replace("\\", "/").removeprefix("./"), info.compress_size
                    yield _Member(place, name, info.file_size, packed, regular, bool(info.flag_bits & 1))

    def unpack(self, wanted: Mapping[int, Path], failed: Callable[[int, str], None]) -> Mapping[int, Path]:
        done = {}
        with zipfile.ZipFile(self._path) as archive:
            infos = archive.infolist()
            for place, target in wanted.items():
                try:
                    with archive.open(infos[place]) as content:
                        _write(content, infos[place].file_size, target)
                    done[place] = target
                except _DAMAGE as error:
                    failed(place, one_line(error))
        return done


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[_Member]:
        with tarfile.open(self._path) as archive:
            for place, info in enumerate(archive):
                if not info.isdir():
                    name = info.name.removeprefix("./")
                    yield _Member(place, name, info.size, info.size, info.isreg() and not info.issparse())

    def unpack(self, wanted: Mapping[int, Path], failed: Callable[[int, str], None]) -> Mapping[int, Path]:
        """In one pass, since a compressed tar cannot go back."""
        done = {}
        place = -1
        try:
            with tarfile.open(self._path) as archive:
                for place, info in enumerate(archive):
                    if place in wanted and (content := archive.extractfile(info)) is not None:
                        _write(content, info.size, wanted[place])
                        done[place] = wanted[place]
                    if len(done) == len(wanted):
                        break
        except _DAMAGE as error:
            for missing in wanted.keys() - done.keys():
                failed(missing, one_line(error))
        return done


def _write(content: IO[bytes], size: int, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    if target.stat().st_size != size:
        raise EOFError("the file is cut off")
