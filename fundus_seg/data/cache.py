"""Photographs and masks at the training size: resized once, kept as memory-mapped arrays that all runs share.

An entry of the cache is a folder whose name is the hash of everything that decides its pixels, the content of the
files included: an entry is never out of date and never changes. It is built in a temporary folder and renamed. A
killed builder leaves its temporary folder behind; a later builder removes it after a day (`cache_folder`).

Disks and copies fail, so an entry proves itself each time it is opened: its record holds the digests of its arrays and
of itself. An entry that does not agree with them is removed and built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.cache_folder import CACHE_VARIABLE, cache_folder, remove, remove_leftovers
from fundus_seg.config import DataConfig
from fundus_seg.cores import map_on_cores
from fundus_seg.data.dataset import BOTH, read_sample
from fundus_seg.data.files import Case
from fundus_seg.data.io import DECODER_VERSION
from fundus_seg.data.witness import Suspicion, Witness, odd_line
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import DataError, Problem, Problems, RunError, one_line
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.atomic import atomic_folder, flush_to_disk, write_text

RESAMPLING = {
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
}
_RECORD = "cases.json"
_ATTEMPTS = 3
"""How often an entry is built, if what is read back is not what was written, before the disk is given up."""


@dataclass(frozen=True)
class ResizedSplit:
    """One split at the training size.

    Attributes:
        digest: 16 hexadecimal digits that name the contents: the names and bytes of all files, the masks' coding, and
            the patients as far as they are known.
        names: the N case names.
        images: (N, size, size, 3) uint8, memory-mapped.
        masks: (N, 2, size, size) uint8 of 0 and 1, channels ("disc", "cup"), memory-mapped.
        problems: why some of the cases must not train a network.
        annotated: (N, 2) bool, whether each structure of a case is annotated; where one is not, its mask is 0.
        odd: what is odd about some of the masks, a line for each kind.
        subjects: `Case.subject` of each case.
    """

    digest: str
    names: tuple[str, ...]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    problems: tuple[Problem, ...]
    annotated: NDArray[np.bool_]
    odd: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


def load_resized(cases: Sequence[Case], data: DataConfig, *, progress: Progress = SILENT) -> ResizedSplit:
    """Load the cases of one split at `data.size` from the cache; the first call resizes them and fills the cache.

    Args:
        cases: the cases of one split, at least one.
        data: the size and how photographs and masks are resized.
        progress: where the resizing is shown.

    Raises:
        DataError: files cannot be used; the error lists all of them. For a training split, it also lists the cases
            that must not train a network. Or the cache cannot be written.
    """
    contents = _content_hashes(cases)
    entry = _entry(cases, contents, data)
    for _ in range(_ATTEMPTS):
        if not os.path.lexists(entry):
            _build(entry, cases, contents, data, progress)
        try:
            record, arrays = _open(entry, len(cases), data.size)
            odd = _odd_lines(cases, record["odd"])
        except (OSError, ValueError, LookupError) as fault:
            if not isinstance(fault, KeyError):  # which an entry of an older version raises: it lacks `odd`
                progress.line(f"{entry}: a damaged entry of the cache ({one_line(fault)}); removed, and built again")
            try:
                remove(entry)
            except OSError as error:
                raise _unwritable(entry, error) from error
            continue
        return ResizedSplit(
            digest=_digest(cases, contents),
            names=tuple(case.name for case in cases),
            **arrays,
            problems=_training_problems(cases, record["problems"]),
            annotated=np.array(record.get("annotated", [BOTH] * len(cases)), dtype=bool).reshape(len(cases), 2),
            odd=odd,
            subjects=tuple(case.subject for case in cases),
        )
    raise DataError(f"the disk of the cache does not keep what is written; set {CACHE_VARIABLE} to another one", entry)


def odd_masks(cases: Sequence[Case], data: DataConfig) -> tuple[str, ...]:
    """What `load_resized` found odd about the masks of these cases; nothing if they are not in the cache any more."""
    record = _entry(cases, _content_hashes(cases), data) / _RECORD
    with contextlib.suppress(OSError, ValueError, LookupError):
        return _odd_lines(cases, _unsealed(record.read_text("utf8"))["odd"])
    return ()


def _entry(cases: Sequence[Case], contents: list[list[Any]], data: DataConfig) -> Path:
    """The folder of the entry that holds these cases."""
    options = data.model_dump(mode="json", exclude={"sources"}) | {"mask_interpolation": "nearest"}
    where = {(case.domain, case.split) for case in cases}
    key = short_hash([sorted(where), contents, options, DECODER_VERSION], digits=32)
    return cache_folder() / "resized" / key


def split_digest(cases: Sequence[Case]) -> str:
    """The digest that the `ResizedSplit` of these cases has, without decoding a photograph."""
    return _digest(cases, _content_hashes(cases))


def _digest(cases: Sequence[Case], contents: list[list[Any]]) -> str:
    """Patients count, since they decide which cases choose a checkpoint; pixels do not change with them (`_entry`)."""
    patients = {case.name: case.patient for case in cases if case.patient is not None}
    return short_hash([contents, patients] if patients else contents, digits=16)


def _build(entry: Path, cases: Sequence[Case], contents: list[list[Any]], data: DataConfig, progress: Progress) -> None:
    """Make an entry of the cache, unless another process is quicker."""
    remove_leftovers()
    try:
        with atomic_folder(entry) as staged:
            _fill(staged, cases, data, progress)
            if _content_hashes(cases) != contents:
                folder = cases[0].image.parent
                raise DataError("files changed while they were read; run the command again", folder)
    except OSError as error:
        if not entry.is_dir():  # otherwise another process has built the same entry first
            raise _unwritable(entry, error) from error


def _unwritable(entry: Path, error: OSError) -> DataError:
    reason = error.strerror or error
    return DataError(f"the cache cannot be written ({reason}); make room, or set {CACHE_VARIABLE}", entry)


def _shapes(count: int, size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of an entry's arrays, which are fields of `ResizedSplit`, by name."""
    return {"images": (count, size, size, 3), "masks": (count, 2, size, size)}


def _open(entry: Path, count: int, size: int) -> tuple[dict[str, Any], dict[str, NDArray[np.uint8]]]:
    """The record and the arrays of an entry, if all is as it was written.

    Raises:
        OSError, ValueError: something is missing or damaged.
    """
    record = _unsealed((entry / _RECORD).read_text("utf8"))
    arrays: dict[str, NDArray[np.uint8]] = {}
    for name, shape in _shapes(count, size).items():
        with (entry / f"{name}.npy").open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != record.get("sha256", {}).get(name):
                raise ValueError(f"{name}.npy is not what was written")
            begin = os.fstat(file.fileno()).st_size - math.prod(shape)
            arrays[name] = np.memmap(file, np.uint8, "r", begin, shape)
    return record, arrays


def _reserved(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A new memory-mapped array, all of whose bytes have their place on the disk.

    Without it a disk that fills while the array is written would be a signal, which kills the process without a word.
    """
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return array


def _fill(folder: Path, cases: Sequence[Case], data: DataConfig, progress: Progress) -> None:
    """Write images.npy, masks.npy and the record of an entry."""
    shapes = _shapes(len(cases), data.size)
    images, masks = (_reserved(folder / f"{name}.npy", shape) for name, shape in shapes.items())
    why_not_train: list[str | None] = [None] * len(cases)
    annotated = [BOTH] * len(cases)
    witness = Witness()

    def resize(index: int) -> None:
        sample = read_sample(cases[index], witness)
        size = (data.size, data.size)
        images[index] = np.asarray(Image.fromarray(sample.image).resize(size, RESAMPLING[data.image_interpolation]))
        for structure, mask in enumerate(sample.masks):
            resized = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            masks[index, structure] = np.asarray(resized)
        why_not_train[index] = training_problem(sample.masks)
        annotated[index] = sample.annotated

    place = f"{cases[0].domain}/{cases[0].split}"
    unusable = Problems()
    map_on_cores(resize, range(len(cases)), problems=unusable, description=f"reading {place}", progress=progress)
    suspicion = witness.suspicion()
    if (unusable.found or suspicion.problems) and cases[0].split == "train":
        unusable.found += _training_problems(cases, why_not_train)
    unusable.found = [*suspicion.problems, *suspicion.unexplained(unusable.found)]
    unusable.refuse("files cannot be used")
    for name in shapes:
        flush_to_disk(folder / f"{name}.npy")
    about: dict[str, Any] = {
        "what": f"{place}, {len(cases)} cases at {data.size}",
        "problems": why_not_train,
        "odd": _odd_entries(cases, suspicion),
        "sha256": {name: file_digest(folder / f"{name}.npy") for name in shapes},
    }
    if any(each != BOTH for each in annotated):
        about["annotated"] = annotated
    (folder / _RECORD).write_text(_sealed(about), "utf8")
    flush_to_disk(folder / _RECORD)


def _sealed(content: dict[str, Any]) -> str:
    """JSON that holds the digest of its content."""
    return json.dumps({**content, "digest": short_hash(content, digits=16)})


def _unsealed(text: str) -> dict[str, Any]:
    """The content of a sealed JSON.

    Raises:
        ValueError: it is not what was written, or is not sealed.
    """
    try:
        content = json.loads(text)
        if isinstance(content, dict) and content.pop("digest", None) == short_hash(content, digits=16):
            return content
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    raise ValueError("its record is not what was written")


def _odd_entries(cases: Sequence[Case], suspicion: Suspicion) -> list[list[Any]]:
    """What is odd, as a record holds it: the first file by its place among the cases, since these may move."""
    places = {path: place for place, path in enumerate(_mask_files(cases))}
    first = ((oddity.summary, oddity.problems[0]) for oddity in suspicion.oddities)
    return [[summary, places[Path(str(problem.path))], problem.text] for summary, problem in first]


def _odd_lines(cases: Sequence[Case], entries: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """The lines of what a record holds to be odd."""
    files = _mask_files(cases)
    return tuple(odd_line(summary, Problem(text, files[place])) for summary, place, text in entries)


def _mask_files(cases: Sequence[Case]) -> list[Path]:
    return [path for case in cases for files in case.masks for path in files]


def _training_problems(cases: Sequence[Case], why_not_train: Sequence[str | None]) -> tuple[Problem, ...]:
    """The problems of the cases that have one, by the file of their masks."""
    return tuple(Problem(text, case.mask) for case, text in zip(cases, why_not_train, strict=True) if text)


def training_problem(masks: NDArray[np.bool_]) -> str | None:
    """Why a case with these masks (2, H, W), at their own size, must not train a network; None if it may."""
    disc, cup = masks
    if not disc.any():
        return "the disc is empty: outline it, or leave the case out"
    if not (disc & ~cup).any():
        return "no rim: every disc pixel is cup; check which of the mask's colours is cup and which is rim"
    return None


def _content_hashes(cases: Sequence[Case]) -> list[list[Any]]:
    """[name, digest of the image, digests of the masks, annotation] of each case.

    The digests are remembered in the cache, by path, size, inode and the times of modification and change: while these
    stay the same, the file is not read again. The digest of a file that was modified within the last two seconds is not
    remembered, because the clock may be too coarse to show another change.
    """
    if not cases:
        return []
    folder = cases[0].image.parent.resolve()
    memory = cache_folder() / "hashes" / f"{short_hash(str(folder), digits=32)}.json"
    try:
        known: dict[str, list[Any]] = _unsealed(memory.read_text("utf8"))["files"]
    except (OSError, ValueError, KeyError):
        known = {}
    seen: dict[str, list[Any]] = {}

    def digest(path: Path) -> str:
        try:
            status = path.stat()
            identity = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            remembered = known.get(str(path.resolve()))
            value = remembered[-1] if remembered and remembered[:-1] == identity else file_digest(path)
        except OSError:
            return secrets.token_hex()  # matches no entry, so that an entry is built, which names the file's fault
        if time.time() - status.st_mtime > 2:
            seen[str(path.resolve())] = [*identity, value]
        return value

    def row(case: Case) -> list[Any]:
        masks = [[digest(path) for path in files] for files in case.masks]
        return [case.name, digest(case.image), masks, case.annotation.recorded()]

    contents = map_on_cores(row, cases)
    if not seen.items() <= known.items():
        # A cache that cannot be written only costs time: the files are read again at the next call.
        with contextlib.suppress(RunError):
            write_text(memory, _sealed({"files": {**known, **seen}}))
    return contents
