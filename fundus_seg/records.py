"""What a run leaves on disk. Every write is atomic: a reader, or a run that starts again, sees the old file or the new.

A run's folder is `runs/[phantom/]<preset>/<holdout>/<operator>[-<slug>]/seed-<n>/`; in it lie

- config.yaml: resolved settings, digests of the inputs, provenance
- metrics.csv: a row an epoch
- checkpoints/{last,best}.ckpt; of a run whose holdout was probed, oracle.ckpt, and probe.csv: a row an epoch
- evaluations/<scoring>-<checkpoint>.csv: a row a case and structure, with a .json beside it. A row holds what cannot
  be had without the masks: scores, sizes, faults. Cup-to-disc ratios are quotients of two rows' sizes and stay out of
  it; so do rim widths, whose sectors have names only where it is known which eye it is
- overlays/: contours drawn on photographs
- tensorboard/, mlflow-run: where it is tracked (`fundus_seg.training.tracking`)
- .lease: which process may write (`fundus_seg.lease`)
- TRAINED, DONE: markers of a run that is trained, and of one that is evaluated too
- FAILED: why a run of a grid came to nothing; removed when it is tried again
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fundus_seg.errors import RunError
from fundus_seg.progress import SILENT, Progress

TEMPORARY = ".tmp"
"""How the names of half-written files end; they begin with a dot."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            _guard.get()()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        _guard.get()()  # who has taken the folder over has removed the temporary file
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or choose another folder"
        ) from error


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


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a torch checkpoint atomically; equal states give equal bytes."""
    import torch

    # A file object, not a path: torch would write the temporary file's random name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # torch's zip writer reports a full disk in its own words
            raise OSError(str(error).splitlines()[0]) from error


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings, digests of the inputs and provenance."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A row an epoch."""
        return self.path / "metrics.csv"

    @property
    def probe(self) -> Path:
        """A row an epoch, of the holdout."""
        return self.path / "probe.csv"

    def checkpoint(self, name: str) -> Path:
        """`last`, `best` or `oracle`."""
        return self.path / "checkpoints" / f"{name}.ckpt"

    def evaluation(self, scoring: str, checkpoint: str) -> Path:
        """The case records of one checkpoint under one scoring protocol; its JSON has the suffix `.json`."""
        return self.path / "evaluations" / f"{scoring}-{checkpoint}.csv"

    def overlays(self, scoring: str, checkpoint: str) -> Path:
        """Contours of one checkpoint under one scoring protocol, drawn on photographs."""
        return self.path / "overlays" / f"{scoring}-{checkpoint}"

    def has(self, marker: str) -> bool:
        """Whether the marker `TRAINED`, `DONE` or `FAILED` stands."""
        return (self.path / marker).is_file()

    def mark(self, marker: str, text: str = "") -> None:
        """Set a marker, which may say something."""
        write_text(self.path / marker, text)

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever a run has written its settings or an epoch; equal stamps, equal state."""
        files = [path.stat() for path in (self.config, self.checkpoint("last")) if path.exists()]
        return tuple(number for file in files for number in (file.st_ino, file.st_mtime_ns))

    def read_config(self) -> dict[str, Any]:
        """The content of config.yaml.

        Raises:
            RunError: there is none, or it is not what a run writes.
        """
        try:
            content = yaml.safe_load(self.config.read_text("utf8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{self.config}: cannot be read as the settings of a run") from error
        sections = ("inputs", "provenance", "train")
        if not isinstance(content, dict) or not all(isinstance(content.get(name), dict) for name in sections):
            raise RunError(f"{self.config}: not written by a run; give a folder that `fundus-seg train` made")
        return content

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        write_text(self.config, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def find_runs(paths: Sequence[Path], *, least: int = 1) -> list[RunFolder]:
    """Every run folder at or below the given paths, sorted, each once.

    Raises:
        RunError: a path does not exist, or fewer than `least` runs lie below them.
    """
    found: dict[Path, Path] = {}  # by resolved path: a folder named in two ways is one run
    for path in paths:
        if not path.exists():
            raise RunError(f"{path}: no such folder; train a run first, or name the folder of one")
        found |= {config.parent.resolve(): config.parent for config in path.rglob("config.yaml")}
    if len(found) < least:
        raise RunError(f"{', '.join(map(str, paths))}: no run below; `fundus-seg train` makes one")
    return [RunFolder(path) for path in sorted(found.values())]


def trained_runs(paths: Sequence[Path], *, least: int = 1, progress: Progress = SILENT) -> list[RunFolder]:
    """The trained runs at or below the given paths; those that are not trained to their end are named and left out.

    Raises:
        RunError: as `find_runs`, or fewer than `least` are trained.
    """
    runs = find_runs(paths, least=least)
    trained = [run for run in runs if run.has("TRAINED")]
    if len(trained) < least:
        raise RunError(f"{runs[0].path}: not trained to its end; the same `fundus-seg train` command goes on with it")
    for run in runs:
        if run not in trained:
            progress.line(f"{run.path}: not trained to its end, left out")
    return trained


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
