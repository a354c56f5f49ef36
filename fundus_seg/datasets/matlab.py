"""Read MATLAB files, and masks from them. Nothing in such a file is executed, and what it unpacks to is bounded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.limits import MAX_PIXELS
from fundus_seg.datasets.content import content_of
from fundus_seg.datasets.model import Rules
from fundus_seg.errors import DataError, one_line

_MOST_BYTES, _MOST_UNPACKED = 1 << 27, 1 << 28
_HEADER, _TAG, _COMPRESSED = 128, 8, 15  # bytes of a file's header and of an element's; the kind of a compressed one


def mat_labels(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """The variable `mask` of a MATLAB file, an array (H, W) of 0 background, 1 rim, 2 cup, as (2, H, W) bool."""
    (path,) = paths
    labels = variable(path, "mask")
    if labels is None or labels.ndim != 2 or labels.dtype.kind not in "buif" or not 0 < labels.size <= MAX_PIXELS:
        raise DataError("no variable `mask` that is a picture; download it again", path)
    if not np.isin(labels, (0, 1, 2)).all():
        raise DataError("its `mask` has other values than 0, 1 and 2; download it again", path)
    return np.stack([labels != 0, labels == 2])


def variable(path: Path, name: str) -> NDArray[np.generic] | None:
    """A variable of a file in MATLAB's format 4 to 7; None if it has none of that name.

    Raises:
        DataError: the file cannot be read, is of another format, or unpacks to far more than a file of its kind.
    """
    from scipy.io import loadmat

    content = content_of(path, _MOST_BYTES)
    try:
        if _unpacked_size(content) > _MOST_UNPACKED:
            raise DataError(f"it unpacks to more than {_MOST_UNPACKED >> 20} MiB; download it again", path)
        found = loadmat(io.BytesIO(content), variable_names=[name]).get(name)
        return found if isinstance(found, np.ndarray) else None
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError("a file of MATLAB 7.3; save it with `save -v7`", path) from error
    except Exception as error:  # a reader may raise any exception when the bytes do not fit the header
        raise DataError(f"not a whole MATLAB file ({one_line(error)}); download it again", path) from error


def _unpacked_size(content: bytes) -> int:
    """The size of the compressed elements of a file, counted up to a little more than `_MOST_UNPACKED`."""
    order = ">" if content[126:_HEADER] == b"MI" else "<"
    place, size = _HEADER, 0
    while place + _TAG <= len(content) and size <= _MOST_UNPACKED:
        kind, length = struct.unpack_from(f"{order}II", content, place)
        place += _TAG
        if kind == _COMPRESSED:
            size += len(zlib.decompressobj().decompress(content[place : place + length], _MOST_UNPACKED + 1))
        place += length
    return size
