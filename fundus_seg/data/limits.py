"""How large a picture may be, and how much memory all threads together may take while they decode."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from fundus_seg.errors import DataError

MAX_PIXELS = 100_000_000
"""Larger images are refused on the size in their header, before anything is decoded."""

BYTES_PER_PIXEL = 16
"""Memory of one pixel at the worst moment of its decoding."""

_MEMORY = 1 << 30  # bytes


class Budget:
    """Memory that threads share while they decode: who asks for more than is left waits until others have ended."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """Wait for `size` bytes and hold them within the block; more than there are means all of them."""
        size = min(size, self._size)
        with self._freed:
            self._freed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._freed:
                self._left += size
                self._freed.notify_all()


_budget = Budget(_MEMORY)


def decoding(pixels: int, bytes_per_pixel: int = BYTES_PER_PIXEL) -> contextlib.AbstractContextManager[None]:
    """A block that decodes so many pixels: it waits until other threads have left enough memory."""
    return _budget.taking(pixels * bytes_per_pixel)


def refuse_too_large(path: Path, width: int, height: int) -> None:
    """Refuse a picture of more than `MAX_PIXELS`.

    Raises:
        DataError: it has more.
    """
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} million"
        raise DataError(f"{width}x{height} pixels, more than {limit}; crop it to the disc region", path)
