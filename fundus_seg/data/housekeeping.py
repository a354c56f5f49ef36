"""What lies in the cache folder: resized splits, remembered hashes, the phantom, the compiled operator, leftovers.

Nothing else in that folder is listed or removed: $FUNDUS_SEG_CACHE may name a folder that holds other things.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.cache_folder import cache_folder
from fundus_seg.errors import DataError

LEFTOVER_AGE = 24 * 60 * 60
"""Seconds after which a temporary file or folder no longer belongs to a builder at work."""
_HELD = {
    "phantom-v*": "the phantom",
    ".phantom-v*": "the phantom",
    "resized/*": "a resized split",
    "hashes/*": "hashes of files",
    "compiled/*": "a compiled operator",
    "shipped/*": "photographs that came from another machine",
}


@dataclass(frozen=True)
class CacheItem:
    """A file or folder of the cache: what it holds, when it was made (seconds since 1970), its size in bytes."""

    path: Path
    what: str
    made: float
    size: int


def cache_items() -> list[CacheItem]:
    """Everything that fundus-seg keeps in the cache folder, sorted by path."""
    items = []
    for path, what in sorted(_held()):
        with contextlib.suppress(FileNotFoundError):  # a builder has just renamed or removed it
            size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
            what = "left by a killed process, or being built" if _temporary(path) else _named(path, what)
            items.append(CacheItem(path, what, path.stat().st_mtime, size))
    return items


def clear_cache() -> None:
    """Delete all of `cache_items`, those of builders at work too: they will say so, and can be started again.

    Raises:
        DataError: something cannot be deleted.
    """
    for path, _ in _held():
        try:
            _remove(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be removed ({error.strerror or error})") from error


def remove_leftovers() -> None:
    """Delete what killed builders left more than a day ago."""
    for path, _ in _held():
        with contextlib.suppress(OSError):  # another process was quicker, or it is another user's
            if _temporary(path) and time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                _remove(path)


def _held() -> Iterator[tuple[Path, str]]:
    folder = cache_folder()
    return ((path, what) for pattern, what in _HELD.items() for path in folder.glob(pattern))


def _temporary(path: Path) -> bool:
    return path.name.startswith(".")


def _named(path: Path, what: str) -> str:
    """What the entry itself says that it holds; else `what`."""
    try:
        return str(json.loads((path / "cases.json").read_text("utf8"))["what"])
    except (OSError, ValueError, KeyError):
        return what


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
