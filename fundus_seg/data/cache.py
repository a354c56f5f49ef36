"""Photographs decoded and resized once, kept as memory-mapped arrays that every run on the machine shares.

An entry is a folder named by the hash of everything that decides its pixels, the content of the files among it: an
entry is never stale and never changed. It is built in a temporary folder and renamed; of two builders at once, the
loser deletes its own. What a killed builder leaves is removed by the next one, a day later (`housekeeping`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.cache_folder import CACHE_VARIABLE, cache_folder
from fundus_seg.config import DataConfig
from fundus_seg.data.dataset import read_sample
from fundus_seg.data.files import Case
from fundus_seg.data.housekeeping import remove_leftovers
from fundus_seg.data.io import DECODER_VERSION
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import DataError, Problems, RunError
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.atomic import atomic_path

RESAMPLING = {
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class ResizedSplit:
    """One split at the training size.

    Attributes:
        digest: 16 hexadecimal digits of the names and contents of its files, and of how its masks are read.
        names: N case names.
        photographs: the digests of their N image files.
        images: (N, size, size, 3) uint8, memory-mapped.
        masks: (N, 2, size, size) uint8 of 0 and 1, channels ("disc", "cup"), memory-mapped.
        problems: for each case that training must not see, the line that says why.
    """

    digest: str
    names: tuple[str, ...]
    photographs: tuple[str, ...]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    problems: tuple[str, ...]


def load_resized(cases: Sequence[Case], data: DataConfig, *, progress: Progress = SILENT) -> ResizedSplit:
    """The cases at `data.size`, from the cache, which is filled first where it must be.

    Raises:
        DataError: files that cannot be used, every one of them listed; of a training split, those that training must
            not see among them.
    """
    contents = _content_hashes(cases)
    options = data.model_dump(mode="json", exclude={"sources"})
    where = {(case.domain, case.split) for case in cases}
    key = short_hash([sorted(where), contents, options, DECODER_VERSION], digits=32)
    entry = cache_folder() / "resized" / key
    if not entry.is_dir():
        _build(entry, cases, contents, data, progress)
    meta = json.loads((entry / "cases.json").read_text("utf8"))
    return ResizedSplit(
        digest=short_hash(contents, digits=16),
        names=tuple(case.name for case in cases),
        photographs=tuple(image for _, image, *_ in contents),
        images=np.load(entry / "images.npy", mmap_mode="r"),
        masks=np.load(entry / "masks.npy", mmap_mode="r"),
        problems=_lines(cases, meta["problems"]),
    )


def split_digest(cases: Sequence[Case]) -> str:
    """The digest that the `ResizedSplit` of these cases has, without decoding a photograph."""
    return short_hash(_content_hashes(cases), digits=16)


def _build(entry: Path, cases: Sequence[Case], contents: list[list[Any]], data: DataConfig, progress: Progress) -> None:
    """Make an entry, whole or not at all."""
    remove_leftovers()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{entry.name}.", dir=entry.parent) as scratch:
            staged = Path(scratch, entry.name)
            staged.mkdir()
            _fill(staged, cases, data, progress)
            if _content_hashes(cases) != contents:
                raise DataError(f"{cases[0].image.parent}: files changed while they were read; run the command again")
            try:
                staged.rename(entry)
            except OSError:
                if not entry.is_dir():  # not the loser of a race: the rename itself failed
                    raise
    except OSError as error:
        problem = error.strerror or error
        raise DataError(f"{entry}: the cache cannot be written ({problem}); set {CACHE_VARIABLE}") from error


def _fill(folder: Path, cases: Sequence[Case], data: DataConfig, progress: Progress) -> None:
    shape = (len(cases), data.size, data.size)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, 3))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (shape[0], 2, *shape[1:]))
    problems: list[str | None] = [None] * len(cases)
    unusable = Problems()

    def resize(index: int) -> str | None:
        sample = read_sample(cases[index])
        size = (data.size, data.size)
        images[index] = Image.fromarray(sample.image).resize(size, RESAMPLING[data.image_interpolation])
        for structure, mask in enumerate(sample.masks):
            resized = Image.fromarray(mask.astype(np.uint8)).resize(size, RESAMPLING[data.mask_interpolation])
            masks[index, structure] = resized
        return training_problem(sample.masks)

    place = f"{cases[0].domain}/{cases[0].split}"
    with (
        progress.task(f"reading {place}", total=len(cases)) as advance,
        ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,
    ):
        for index, future in enumerate([pool.submit(resize, index) for index in range(len(cases))]):
            with unusable.gather():
                problems[index] = future.result()
            advance()
    if unusable.lines and cases[0].split == "train":
        unusable.lines += _lines(cases, problems)
    unusable.refuse("files cannot be used")
    images.flush()
    masks.flush()
    about = {"what": f"{place}, {len(cases)} cases at {data.size}", "problems": problems}
    (folder / "cases.json").write_text(json.dumps(about), "utf8")


def _lines(cases: Sequence[Case], problems: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(f"{case.mask}: {problem}" for case, problem in zip(cases, problems, strict=True) if problem)


def training_problem(masks: NDArray[np.bool_]) -> str | None:
    """Why a case must not train a network, judged on its full-size masks (2, H, W)."""
    disc, cup = masks
    if not disc.any():
        return "the disc is empty: outline it, or leave the case out"
    if not (disc & ~cup).any():
        return "no rim: every disc pixel is cup; check which of the mask's colours is cup and which is rim"
    return None


def _content_hashes(cases: Sequence[Case]) -> list[list[Any]]:
    """[name, digest of the image, digests of the masks, annotation] of each case; digests of unchanged files are
    remembered.

    A file is taken for unchanged while its path, size, inode and times of modification and change are. One modified
    within the last two seconds is not remembered: it could change again within the clock's tick.
    """
    if not cases:
        return []
    folder = cases[0].image.parent.resolve()
    memory = cache_folder() / "hashes" / f"{short_hash(str(folder), digits=32)}.json"
    try:
        known: dict[str, Any] = json.loads(memory.read_text("utf8"))
    except (OSError, ValueError):
        known = {}
    seen: dict[str, Any] = {}

    def digest(path: Path) -> str:
        try:
            status = path.stat()
            identity = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            remembered = known.get(str(path.resolve()))
            value = remembered[-1] if remembered and remembered[:-1] == identity else file_digest(path)
        except OSError:
            return secrets.token_hex()  # no entry's: the build will say what is wrong with the file
        if time.time() - status.st_mtime > 2:
            seen[str(path.resolve())] = [*identity, value]
        return value

    def row(case: Case) -> list[Any]:
        masks = [[digest(path) for path in files] for files in case.masks]
        return [case.name, digest(case.image), masks, asdict(case.annotation)]

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        contents = list(pool.map(row, cases))
    if not seen.items() <= known.items():
        # Only time is lost where the cache can be read but not written.
        with contextlib.suppress(RunError), atomic_path(memory) as temporary:
            temporary.write_text(json.dumps({**known, **seen}), "utf8")
    return contents
