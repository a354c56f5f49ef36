"""Send a data root to a machine that cannot see its folder: pack it into one archive, and unpack it there."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fundus_seg.cache_folder import CACHE_VARIABLE, cache_folder
from fundus_seg.data.files import SPLITS
from fundus_seg.data.layout import DataRoot
from fundus_seg.data.patients import PatientTable
from fundus_seg.errors import DataError
from fundus_seg.phantom.make import PHANTOM_MARKER
from fundus_seg.runs.atomic import atomic_folder

_AS_DATA: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python before 3.11.4 has no filters; `pack` writes nothing that they would refuse."""


@dataclass(frozen=True)
class Parcel:
    """A packed data root.

    Attributes:
        archive: a tar of the files of all cases, and of the YAML file that describes them, with its tables of patients,
            if there is one.
        entry: the name of that YAML file; empty if there is none.
    """

    archive: bytes = field(repr=False)
    entry: str

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the content of the archive."""
        return hashlib.sha256(self.archive).hexdigest()[:16]


def pack(root: DataRoot) -> Parcel:
    """Pack every case of a data root, in memory.

    Raises:
        DataError: a file lies outside the root's folder.
    """
    described = root.path.is_file()
    base = root.path.parent if described else root.path
    files = {root.path} if described else set()
    files |= {source.path for source in root.patients.values() if isinstance(source, PatientTable)}
    for domain in root.domains:
        for split in SPLITS:
            for case in root.split(domain, split).cases:
                files |= {case.image, *itertools.chain(*case.masks, *(own for _, own in case.readers))}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for file in sorted(files):
            inside = os.path.relpath(file, base)
            if inside.startswith(os.pardir):
                raise DataError(
                    f"not below {base}, so it cannot be sent along; put the data where all machines see them", file
                )
            archive.add(file, inside)
        if root.phantom:  # the marker may lie in a folder above the root
            archive.addfile(tarfile.TarInfo(PHANTOM_MARKER))
    return Parcel(buffer.getvalue(), root.path.name if described else "")


def unpacked(digest: str, entry: str) -> Path | None:
    """The root of a parcel on this machine, if it was unpacked before; `open_root` opens it."""
    place = _place(digest)
    return place / entry if place.is_dir() else None


def unpack(parcel: Parcel) -> Path:
    """Unpack a parcel into the cache folder, unless it is there already; `open_root` opens the path returned.

    Raises:
        DataError: the cache folder cannot be written.
    """
    place = _place(parcel.digest)
    if not place.is_dir():
        try:
            with atomic_folder(place) as staged, tarfile.open(fileobj=io.BytesIO(parcel.archive)) as archive:
                archive.extractall(staged, **_AS_DATA)
        except OSError as error:
            if not place.is_dir():  # otherwise another process has unpacked the same archive first
                reason = error.strerror or error
                raise DataError(f"cannot be written ({reason}); make room, or set ${CACHE_VARIABLE}", place) from error
    return place / parcel.entry


def _place(digest: str) -> Path:
    return cache_folder() / "shipped" / digest
