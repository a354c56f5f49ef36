"""The cache folder: where it is, what fundus-seg keeps in it, and how it is cleared.

Everything in it can be made again: resized photographs, remembered hashes, the phantom, the compiled operator, networks
that were fetched. Other files in that folder are neither listed nor removed: $FUNDUS_SEG_CACHE may name a folder that
holds other things.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.errors import DataError

CACHE_VARIABLE = "FUNDUS_SEG_CACHE"
LEFTOVER_AGE = 24 * 60 * 60
"""Seconds after which a temporary file or folder is taken for one that a killed process has left."""
_CONTENTS = {
    "phantom-v*": "the phantom",
    ".phantom-v*": "the phantom",
    "resized/*": "a resized split",
    "hashes/*": "hashes of files",
    "floors/*": "scores of a mean mask",
    "ceilings/*": "scores of readers against each other",
    "compiled/*": "a compiled operator",
    "models/*": "a network from elsewhere",
    "shipped/*": "photographs that came from another machine",
}


@dataclass(frozen=True)
class CacheItem:
    """A file or folder of the cache.

    Attributes:
        path: the file or folder.
        what: what it holds, in words.
        made: when it was last changed, in seconds since 1970.
        size: its size in bytes.
    """

    path: Path
    what: str
    made: float
    size: int


def cache_folder() -> Path:
    """$FUNDUS_SEG_CACHE, or `fundus-seg` in the user's cache folder. It is never inside a data root.

    Raises:
        DataError: none of $FUNDUS_SEG_CACHE, $XDG_CACHE_HOME and $HOME is set, and the system does not know the user.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fundus-seg"
    except RuntimeError as error:
        raise DataError(f"this user has no home folder to keep the cache in; set ${CACHE_VARIABLE}") from error


def cache_items() -> list[CacheItem]:
    """Everything that fundus-seg keeps in the cache folder, sorted by path."""
    items = []
    for path, what in sorted(_contents()):
        with contextlib.suppress(FileNotFoundError):  # a builder has just renamed or removed it
            size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
            what = "left by a killed process, or being built" if _is_temporary(path) else _own_name(path) or what
            items.append(CacheItem(path, what, path.stat().st_mtime, size))
    return items


def clear_cache() -> None:
    """Delete all `cache_items`, also those that are being built: their builders fail, and can be started again.

    Raises:
        DataError: an item cannot be deleted.
    """
    for path, _ in _contents():
        try:
            remove(path)
        except OSError as error:
            raise DataError(f"cannot be removed ({error.strerror or error})", path) from error


def remove_leftovers() -> None:
    """Delete what killed processes left more than a day ago."""
    for path, _ in _contents():
        with contextlib.suppress(OSError):  # another process has removed it first, or it belongs to another user
            if _is_temporary(path) and time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                remove(path)


def _contents() -> Iterator[tuple[Path, str]]:
    """Path and kind of each item."""
    folder = cache_folder()
    return ((path, what) for pattern, what in _CONTENTS.items() for path in folder.glob(pattern))


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".")


def _own_name(path: Path) -> str | None:
    """What the item itself says that it holds, if it says so."""
    try:
        return str(json.loads((path / "cases.json").read_text("utf8"))["what"])
    except (OSError, ValueError, KeyError):
        return None


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it; it may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
