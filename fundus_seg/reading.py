"""The file that each thread decodes at the moment: warnings of decoders name none, so whoever prints them adds it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

_of_thread = threading.local()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say that this thread decodes a file within the block."""
    _of_thread.path = path
    try:
        yield
    finally:
        _of_thread.path = None


def file_being_read() -> Path | None:
    """The file that this thread decodes; None if it decodes none."""
    path: Path | None = getattr(_of_thread, "path", None)
    return path
