"""Zip and tar archives from strangers: what is in them, within bounds, and its bytes under names of our own.

Nothing is written under a name from an archive, so that no name, link or device in it can lead anywhere. A name that is
absolute or climbs out of its archive is refused all the same, since its author meant harm. Links and devices are never
read.
"""

from __future__ import annotations

import errno
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from fundus_seg.errors import DataError, one_line

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
"""Suffixes of archives that can be read."""
UNREADABLE = (".rar", ".7z")
"""Suffixes of archives that the user must unpack."""
MOST_FILES = 100_000
"""Files in an archive, and in a download."""
MOST_CONTENT = 1 << 39
"""Bytes that an archive says it has: a compressed tar must be unpacked to its end to be listed."""
MOST_RATIO = 1100
"""How many times its packed size a file may have: deflate reaches 1032, and does so on masks."""


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its files.

    Attributes:
        place: its place in the archive.
        name: its path, with `/` between folders.
        size: its bytes.
        packed: its bytes in the archive.
        regular: whether it is a regular file: no link, no device.
        encrypted: whether it can be read with a password only.
    """

    place: int
    name: str
    size: int
    packed: int
    regular: bool
    encrypted: bool = False


Failed = Callable[[int, str], None]
"""Is called with the place of a file that cannot be unpacked, and the reason."""


class Archive(Protocol):
    """An archive; `members` and `unpack` may raise any exception where it is damaged."""

    def members(self) -> Iterator[Member]:
        """Its files."""
        ...

    def unpack(self, wanted: Mapping[int, Path], failed: Failed) -> Iterator[tuple[int, Path]]:
        """Write the files at some places to the paths that are given; gives each place and path once it is written."""
        ...


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive by its content, whatever its name."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except Exception:  # as of a compressed file that was cut off
        return False


def open_archive(path: Path, shown: str) -> tuple[Archive, list[Member]]:
    """An archive and its files, sorted by name.

    Args:
        path: the archive.
        shown: its name in errors.

    Raises:
        DataError: it is damaged or encrypted, breaks a bound, or has a name that leads out of it.
    """
    try:
        archive: Archive = _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
        members: list[Member] = []
        content = 0
        for member in archive.members():
            _refuse(member, shown)
            members.append(member)
            content += member.size
            if len(members) > MOST_FILES:
                raise DataError(f"more than {MOST_FILES} files in it; nothing was unpacked", shown)
            if content > MOST_CONTENT:
                raise DataError(f"it would unpack to more than {MOST_CONTENT >> 30} GiB; nothing was unpacked", shown)
    except DataError:
        raise
    except Exception as error:  # a reader may raise any exception when the bytes do not fit the format
        raise DataError(f"not a whole zip or tar archive ({one_line(error)}); download it again", shown) from error
    return archive, sorted(members, key=lambda member: member.name)


def _refuse(member: Member, archive: str) -> None:
    place = f"{archive}/{member.name}"
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or parts[0].endswith(":"):
        raise DataError("a name that leads out of its archive; nothing was unpacked", place)
    if member.encrypted:
        raise DataError("encrypted; unpack the archive with its password, and give the folder", place)
    if member.size > MOST_RATIO * max(member.packed, 1):
        raise DataError(f"it would unpack to {member.size} bytes from {member.packed}; nothing was unpacked", place)


def _plain(name: str) -> str:
    """A name in an archive with `/` between folders, and without the parts that name none; an absolute one stays so."""
    slashed = name.replace("\\", "/")
    return "/" * slashed.startswith("/") + "/".join(part for part in slashed.split("/") if part not in ("", "."))


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[Member]:
        with zipfile.ZipFile(self._path) as archive:
            for place, info in enumerate(archive.infolist()):
                if not info.is_dir():
                    mode = info.external_attr >> 16
                    regular = stat.S_ISREG(mode) or not stat.S_IFMT(mode)
                    encrypted = bool(info.flag_bits & 1)
                    yield Member(place, _plain(info.filename), info.file_size, info.compress_size, regular, encrypted)

    def unpack(self, wanted: Mapping[int, Path], failed: Failed) -> Iterator[tuple[int, Path]]:
        with zipfile.ZipFile(self._path) as archive:
            infos = archive.infolist()
            for place, target in wanted.items():
                try:
                    with archive.open(infos[place]) as content:
                        _write(content, infos[place].file_size, target)
                except Exception as error:  # as in `open_archive`
                    _tell(place, error, failed)
                else:
                    yield place, target


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[Member]:
        with tarfile.open(self._path) as archive:
            for place, info in enumerate(archive):
                if not info.isdir():
                    regular = info.isreg() and not info.issparse()
                    yield Member(place, _plain(info.name), info.size, info.size, regular)

    def unpack(self, wanted: Mapping[int, Path], failed: Failed) -> Iterator[tuple[int, Path]]:
        """In one pass, since a compressed tar cannot go back."""
        left = dict(wanted)
        try:
            with tarfile.open(self._path) as archive:
                for place, info in enumerate(archive):
                    if place in left and (content := archive.extractfile(info)) is not None:
                        _write(content, info.size, left[place])
                        yield place, left.pop(place)
                    if not left:
                        break
        except Exception as error:  # as in `open_archive`
            for place in left:
                _tell(place, error, failed)


def _tell(place: int, error: Exception, failed: Failed) -> None:
    """Say that a file cannot be unpacked, unless the disk is full."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise error
    failed(place, one_line(error))


def _write(content: IO[bytes], size: int, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    if target.stat().st_size != size:
        raise EOFError("the file is cut off")
