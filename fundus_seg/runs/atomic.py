"""Atomic writes: a reader, or a run that starts again, sees the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from fundus_seg.errors import RunError

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


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mappings with equal keys as CSV under a line of their names; floats in full, NaN as an empty field."""
    import pandas as pd

    return pd.DataFrame(rows).to_csv(index=False)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write mappings with equal keys as a CSV, atomically."""
    write_text(path, csv_text(rows))
