"""Atomic writes: a reader, or a run that starts again, sees the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_seg.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

TEMPORARY = ".tmp"
"""How the names of half-written files end; they begin with a dot."""

_guard: ContextVar[Callable[[], None]] = ContextVar("guard", default=lambda: None)


@contextlib.contextmanager
def guarded(check: Callable[[], None]) -> Iterator[None]:
    """Within, in this thread, every write calls `check` when its temporary file is whole, before that takes its place.

    An error of `check` ends the write: what stood there before still stands.
    """
    before = _guard.set(check)
    try:
        yield
    finally:
        _guard.reset(before)


def sweep(folder: Path) -> None:
    """Remove the temporary files of writers that were killed, at any depth."""
    for leftover in folder.rglob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and put it in place, else remove it.

    Raises:
        RunError: the folder cannot be written, or the disk is full; what stood at `path` before still stands.
    """
    _guard.get()()  # before a folder is made: a run whose folder was deleted must not make it again
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{uuid.uuid4().hex}{TEMPORARY}"
        try:
            temporary.touch(exist_ok=False)  # with the permissions that the system gives to new files
            yield temporary
            flush_to_disk(temporary)
            _guard.get()()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        _guard.get()()  # who has taken the folder over has removed the temporary file
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or choose another folder"
        ) from error


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder, hidden beside `path`; rename it to `path` when the block succeeds, else delete it.

    So `path` appears complete or not at all. If two processes make the same folder at once, the first to finish puts
    its own in place, and the second deletes its own. An empty folder at `path` is replaced.

    Raises:
        OSError: the folder cannot be written, or another process has put its own at `path`, which then is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        staged = Path(scratch, path.name)  # not `scratch` itself, which only its owner may read
        staged.mkdir()
        yield staged
        staged.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf8")


def append_bytes(path: Path, piece: bytes) -> None:
    """Append to a file in one write, on disk when this returns; a kill in between leaves a part of `piece` at most.

    Raises:
        RunError: the file cannot be written, or the disk is full.
    """
    _guard.get()()
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(piece) < len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as error:
        _guard.get()()  # the folder may just have been deleted
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or choose another folder"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mappings as CSV under a line of all keys; floats in full, NaN and what a mapping lacks as an empty field."""
    import pandas as pd

    return frame_csv(pd.DataFrame(rows))


def frame_csv(frame: pd.DataFrame, **options: Any) -> str:
    """The frame as CSV without its index, which reads back whatever its texts hold.

    Lines end with a line feed; but where a text holds a carriage return, as a file's name may, with both, since the
    csv module then puts that text in quotes.

    Args:
        frame: the data.
        options: further arguments of `DataFrame.to_csv`.
    """
    text = frame.to_csv(index=False, lineterminator="\n", **options)
    return frame.to_csv(index=False, lineterminator="\r\n", **options) if "\r" in text else text


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write mappings as a CSV, atomically; see `csv_text`."""
    write_text(path, csv_text(rows))
