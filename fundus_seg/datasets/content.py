"""Read a small file of a download as a whole."""

from __future__ import annotations

from pathlib import Path

from fundus_seg.errors import DataError


def content_of(path: Path, most: int) -> bytes:
    """The bytes of a file.

    Args:
        path: the file.
        most: the bytes that it may have; a file of its kind is far smaller.

    Raises:
        DataError: the file cannot be opened, or is larger.
    """
    try:
        if path.stat().st_size > most:
            raise DataError(f"more than {most >> 20} MiB, so not what its name says; download it again", path)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror}); check the file and who may read it", path) from error
