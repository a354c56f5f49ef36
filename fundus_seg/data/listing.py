"""List the photographs or masks in folders: which files are taken, and which are left out, with the reason for each.

All commands list files here. Only regular files are taken, and links to them. A file is known by its suffix, in upper
or lower case; of the files without the suffix of a photograph, the first bytes tell those that are DICOM. Everything
else is left out, and the caller tells of it (`tell`) but for what can be no picture: tables, texts, and what file
managers leave behind (`Thumbs.db`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fundus_seg.data import dicom
from fundus_seg.data.names import suffix_of
from fundus_seg.errors import DataError
from fundus_seg.progress import Progress

PICTURES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".nii", ".nii.gz"),
)
"""Suffixes of files that are no DICOM, whatever they hold."""

PHOTOGRAPHS = (*PICTURES, *dicom.SUFFIXES)
"""Suffixes of photographs in a folder."""

MASKS = (".png", ".bmp", ".dib", ".tif", ".tiff", ".nii", ".nii.gz")
"""Suffixes of masks in a folder; a pattern takes others too."""

_DOCUMENTS = (
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".db"),
    *(".md", ".rst", ".pdf", ".html", ".htm", ".rtf", ".doc", ".docx", ".xls", ".xlsx", ".ods", ".odt", ".url", ".lnk"),
    *(".py", ".ipynb", ".m", ".r", ".sh", ".bat", ".zip", ".7z", ".rar", ".tar", ".tgz", ".md5", ".sha256"),
)
"""Suffixes of files that are neither photographs nor masks: nobody misses them."""

_UNSUFFIXED = ("license", "licence", "readme", "copying", "makefile", "dockerfile", "version", "dicomdir")
"""The same, of files without a suffix."""

HIDDEN = "hidden, since the name begins with a dot"
SPECIAL = "not a regular file"
FOLDER = "a folder, though named as a picture"
NESTED = "in a subfolder"

_Kind = Literal["file", "folder", "special"]


@dataclass(frozen=True)
class Skipped:
    """A file that was found where a command looked, and is left out.

    Attributes:
        path: the file.
        reason: why it is left out.
        fix: how to have it taken; may be empty.
    """

    path: Path
    reason: str
    fix: str = ""


@dataclass(frozen=True)
class Listing:
    """The files of some folders.

    Attributes:
        files: the files that are taken, in the order of the folders and sorted within each.
        skipped: those that are left out.
    """

    files: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Entry:
    """A file or folder in a folder. A link counts as what it leads to; one that leads nowhere is a file."""

    path: Path
    kind: _Kind

    @property
    def hidden(self) -> bool:
        """Whether the name begins with a dot."""
        return self.path.name.startswith(".")


def photographs(paths: Sequence[Path], *, recursive: bool = False, written: Path | None = None) -> Listing:
    """List photographs: the given files, whatever their suffix, and those in the given folders.

    Args:
        paths: files and folders.
        recursive: whether the subfolders of the folders are listed too.
        written: a folder that the command itself writes to, which is passed over if it lies in a listed folder.

    Raises:
        DataError: a path does not exist, is not a regular file, or is a folder without a photograph.
    """
    files: dict[str, Path] = {}
    skipped: list[Skipped] = []
    for path in paths:
        kind = kind_of(path)
        if kind == "folder":
            found = in_folder(path, PHOTOGRAPHS, "photograph", recursive=recursive, written=written)
            if not found.files:
                raise DataError(f"no photograph in it ({', '.join(PHOTOGRAPHS)}){summary(found.skipped)}", path)
        elif kind == "special":
            raise DataError(f"{SPECIAL}; give a photograph", path)
        elif not os.path.lexists(path):
            raise DataError("no such photograph or folder", path)
        else:
            found = Listing((path,), ())
        for file in found.files:
            files.setdefault(str(file.absolute()), file)
        skipped += found.skipped
    return Listing(tuple(files.values()), tuple(dict.fromkeys(skipped)))


def in_folder(
    folder: Path, suffixes: Collection[str], what: str, *, recursive: bool = False, written: Path | None = None
) -> Listing:
    """List the files in a folder that have one of the suffixes.

    Args:
        folder: the folder.
        suffixes: in lower case, with their dot.
        what: what these files are, in the singular: "photograph".
        recursive: as in `photographs`.
        written: as in `photographs`.

    Raises:
        DataError: the folder cannot be listed.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    passed = {os.path.realpath(written)} if written else set()
    fix = "give --recursive, or the subfolder" if suffixes is PHOTOGRAPHS else "give that folder, or a pattern"
    for entry, nested in _walk(folder, passed):
        file = entry.path.name
        fits = suffix_of(file) in suffixes
        if not fits and suffixes is PHOTOGRAPHS and entry.kind == "file" and may_be_picture(file):
            fits = is_dicom(entry.path)
        if entry.kind == "folder":
            if fits:
                skipped.append(Skipped(entry.path, FOLDER))
        elif nested and not recursive:
            if fits and not entry.hidden:
                skipped.append(Skipped(entry.path, NESTED, fix))
        elif reason := unusable(entry):
            skipped.append(Skipped(entry.path, reason))
        elif fits:
            files.append(entry.path)
        elif may_be_picture(file):
            skipped.append(Skipped(entry.path, f"without a suffix of a {what}", "export as PNG"))
    return Listing(tuple(files), tuple(skipped))


def _walk(folder: Path, passed: set[str]) -> Iterator[tuple[Entry, bool]]:
    """What is in a folder and, each folder once, in its visible subfolders; and whether it is in a subfolder.

    Args:
        folder: the folder.
        passed: real paths of folders that are passed over; those that are listed are added.

    Raises:
        DataError: the folder cannot be listed. Such a subfolder counts as an empty one.
    """
    passed.add(os.path.realpath(folder))
    for entry in entries(folder):
        if entry.kind == "folder":
            if entry.hidden or os.path.realpath(entry.path) in passed:
                continue
            yield entry, False
            with contextlib.suppress(DataError):
                yield from ((below, True) for below, _ in _walk(entry.path, passed))
        else:
            yield entry, False


def files_below(folder: Path) -> list[Path]:
    """The visible files in a folder and in its visible subfolders; none if it cannot be listed."""
    with contextlib.suppress(DataError):
        return [entry.path for entry, _ in _walk(folder, set()) if entry.kind == "file" and not entry.hidden]
    return []


def entries(folder: Path) -> list[Entry]:
    """What is in a folder, sorted by name.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror})", folder) from error
    return [Entry(path, kind_of(path)) for path in paths]


def kind_of(path: Path) -> _Kind:
    """What a path leads to; a path that leads nowhere counts as a file, so that reading it says why."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special"


def unusable(entry: Entry) -> str:
    """Why a file cannot be a photograph or a mask whatever its suffix; nothing if it can, or if nobody misses it."""
    if entry.hidden:
        return HIDDEN if suffix_of(entry.path.name) in PHOTOGRAPHS else ""
    return SPECIAL if entry.kind == "special" else ""


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file by its first bytes, which are read unless it has the suffix of a picture."""
    return suffix_of(path.name) not in PICTURES and dicom.has_mark(path)


def may_be_picture(file: str) -> bool:
    """Whether a file of this name may be a photograph or a mask that somebody misses: not a hidden one, nor a text."""
    if file.startswith(".") or suffix_of(file) in _DOCUMENTS:
        return False
    return bool(suffix_of(file)) or file.lower() not in _UNSUFFIXED


def tell(skipped: Iterable[Skipped], progress: Progress) -> None:
    """Say on one line for each reason how many files are left out."""
    for (reason, fix), paths in _by_reason(skipped).items():
        progress.left_out("file", reason, paths, fix)


def summary(skipped: Iterable[Skipped]) -> str:
    """What is left out, as the end of an error about a folder in which nothing else is: `; 51 in a subfolder (...)`."""
    return "".join(
        f"; {len(paths)} {reason}{fix and f' ({fix})'}" for (reason, fix), paths in _by_reason(skipped).items()
    )


def _by_reason(skipped: Iterable[Skipped]) -> dict[tuple[str, str], list[Path]]:
    grouped: dict[tuple[str, str], list[Path]] = {}
    for each in skipped:
        grouped.setdefault((each.reason, each.fix), []).append(each.path)
    return grouped
