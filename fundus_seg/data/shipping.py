"""A data root as one archive, for a machine that does not see its folder."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fundus_seg.cache_folder import CACHE_VARIABLE, cache_folder
from fundus_seg.data.files import SPLITS
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import DataError
from fundus_seg.phantom.make import PHANTOM_MARKER


@dataclass(frozen=True)
class Parcel:
    """The cases of a data root.

    Attributes:
        archive: their files as a tar, with the YAML file that describes them, if there is one.
        entry: that file's name; empty for a folder that needs none.
    """

    archive: bytes = field(repr=False)
    entry: str

    @property
    def digest(self) -> str:
        """Names the archive by its content."""
        return hashlib.sha256(self.archive).hexdigest()[:16]


def pack(root: DataRoot) -> Parcel:
    """Every case of a data root, in memory.

    Raises:
        DataError: files outside the root's folder.
    """
    described = root.path.is_file()
    base = root.path.parent if described else root.path
    cases = (case for domain in root.domains for split in SPLITS for case in root.survey(domain, split)[0])
    files = {file for case in cases for file in (case.image, *(mask for masks in case.masks for mask in masks))}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for file in sorted({*files, root.path} if described else files):
            inside = os.path.relpath(file, base)
            if inside.startswith(os.pardir):
                raise DataError(f"{file}: not below {base}, so it cannot be sent along; put the data where all see it")
            archive.add(file, inside)
        if root.phantom:  # whose marker may lie above the root
            archive.addfile(tarfile.TarInfo(PHANTOM_MARKER))
    return Parcel(buffer.getvalue(), root.path.name if described else "")


def unpacked(digest: str, entry: str) -> Path | None:
    """What opens the root of a parcel here, if it has been unpacked before; needs no archive."""
    place = _place(digest)
    return place / entry if place.is_dir() else None


def unpack(parcel: Parcel) -> Path:
    """What opens the root here: unpacked into the cache folder, unless it is there already.

    Raises:
        DataError: the cache folder cannot be written.
    """
    place = _place(parcel.digest)
    try:
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as scratch:
                staged = Path(scratch) / "root"
                with tarfile.open(fileobj=io.BytesIO(parcel.archive)) as archive:
                    archive.extractall(staged, filter="data")
                staged.rename(place)
    except OSError as error:
        if not place.is_dir():  # otherwise another process was quicker, and unpacked the same
            raise DataError(
                f"{place}: cannot be written ({error.strerror or error}); make room, or set ${CACHE_VARIABLE}"
            ) from error
    return place / parcel.entry


def _place(digest: str) -> Path:
    return cache_folder() / "shipped" / digest
