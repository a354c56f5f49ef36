"""What a run leaves on disk. Every write is atomic: a reader, or a run that starts again, sees the old file or the new.

A run's folder is `runs/[phantom/]<preset>/<holdout>/<operator>[-<recipe>]/seed-<n>/`; in it lie

- config.yaml: resolved settings, digests of the inputs, provenance
- photographs.json: digests of the photographs that the network has seen, by which runs that start from it know them
- metrics.csv: one row per epoch; its learning rate is that of the epoch's last step
- checkpoints/{last,best}.ckpt; of a run with `train.average`, average.ckpt; of a run whose holdout was probed,
  oracle.ckpt, and probe.csv: one row per epoch
- evaluations/<scoring>-<checkpoint>.csv: one row per case and structure, with a .json beside it. A row holds what
  cannot be had without the masks: scores, sizes, faults. Cup-to-disc ratios are quotients of two rows' sizes and stay
  out of it; so do rim widths, whose sectors have names only where it is known which eye it is. A .pairs beside it says
  how alike the masks of different cases are
- floor/<scoring>-mean-mask.csv: the same records of the mean mask of the run's source domains, made without its network
- ceiling/<scoring>-readers.csv: of a holdout whose readers are kept apart, records of their masks against each other's
- kernels/<checkpoint>.npz: how the kernels of its operators differ between positions, as `fundus-seg affinity` has
  measured it; of a run with `train.keep_affinity`, kernels/epoch-<n>.npz too (`fundus_seg.runs.kernels`)
- calibration.json, trust.json: temperatures, and what predicted scores and intervals are made of; each names the
  checkpoint that it is of
- overlays/: contours drawn on photographs
- ../ensemble-<digest of seeds>/: evaluations/, overlays/ and trust.json of the runs beside it as one
  (`evaluation.ensembles`)
- tensorboard/, mlflow-run: where it is tracked (`fundus_seg.training.tracking`)
- .lease: which process may write (`fundus_seg.runs.lease`)
- TRAINED, DONE: markers of a run that is trained, and of one that is evaluated too
- FAILED: why a run of a grid came to nothing; removed when it is tried again
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_seg import yaml_lines
from fundus_seg.errors import RunError
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.atomic import write_text
from fundus_seg.yaml_lines import YamlError

RUN_FORMAT = 1
"""Format of config.yaml."""


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
    def photographs(self) -> Path:
        """Digests of the photographs that the network has seen."""
        return self.path / "photographs.json"

    @property
    def probe(self) -> Path:
        """A row an epoch, of the holdout."""
        return self.path / "probe.csv"

    def checkpoint(self, name: str) -> Path:
        """`last`, `best`, `average` or `oracle`."""
        return self.path / "checkpoints" / f"{name}.ckpt"

    def evaluation(self, scoring: str, checkpoint: str) -> Path:
        """The case records of one checkpoint under one scoring protocol; its JSON has the suffix `.json`."""
        return self.path / "evaluations" / f"{scoring}-{checkpoint}.csv"

    def floor(self, scoring: str, cases: str) -> Path:
        """The case records of the source domains' mean mask, on cases `holdout` or `in-domain`."""
        which = "" if cases == "holdout" else f"-{cases}"
        return self.path / "floor" / f"{scoring}-mean-mask{which}.csv"

    def ceiling(self, scoring: str) -> Path:
        """The case records of the holdout's readers, each scored against each other one."""
        return self.path / "ceiling" / f"{scoring}-readers.csv"

    def overlays(self, scoring: str, checkpoint: str) -> Path:
        """Contours of one checkpoint under one scoring protocol, drawn on photographs."""
        return self.path / "overlays" / f"{scoring}-{checkpoint}"

    def has(self, marker: str) -> bool:
        """Whether the marker `TRAINED`, `DONE` or `FAILED` stands."""
        return (self.path / marker).is_file()

    @property
    def begun(self) -> bool:
        """Whether the run has trained anything: before that it may be begun anew, with whatever settings."""
        return self.config.exists() and any(self.checkpoint("last").parent.glob("*.ckpt"))

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
            node = yaml_lines.compose(self.config.read_text("utf8"))
            content = node and yaml_lines.value(node)
        except (OSError, UnicodeDecodeError, YamlError) as error:
            raise RunError(f"{self.config}: cannot be read as the settings of a run") from error
        sections = ("inputs", "provenance", "train")
        if not isinstance(content, dict) or not all(isinstance(content.get(name), dict) for name in sections):
            raise RunError(f"{self.config}: not written by a run; give a folder that `fundus-seg train` made")
        if content.get("format") != RUN_FORMAT:
            raise RunError(
                f"{self.config}: format {content.get('format')}, this version reads {RUN_FORMAT}; update fundus-seg"
            )
        # Older versions did not quote a digest such as 1234e567, which is a number in YAML 1.2.
        return {**content, "inputs": yaml_lines.as_written(node, "inputs")}

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        write_text(self.config, yaml_lines.write(dict(content)))


def folders_below(paths: Sequence[Path], *, progress: Progress = SILENT) -> list[Path]:
    """Every folder at or below the given paths, sorted; symbolic links are followed.

    A folder that is reached in several ways is there once, by a way without links where there is one; so a link to a
    folder above itself does no harm.

    Args:
        paths: folders.
        progress: told which links lead nowhere, and which folders cannot be read.
    """
    found: dict[tuple[int, int], Path] = {}
    waiting, linked = deque(paths), deque[Path]()
    unread: list[Path] = []
    broken: list[Path] = []
    while waiting or linked:
        folder = waiting.popleft() if waiting else linked.popleft()  # what links lead to comes last
        try:
            status = folder.stat()
            if found.setdefault((status.st_dev, status.st_ino), folder) is not folder:
                continue
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                path = folder / entry.name
                if not entry.is_symlink():
                    if entry.is_dir():
                        waiting.append(path)
                elif path.is_dir():
                    linked.append(path)
                elif not path.exists():
                    broken.append(path)
        except NotADirectoryError:
            continue
        except OSError:
            unread.append(folder)
    progress.left_out("link", "leading nowhere", broken)
    progress.left_out("folder", "not readable", unread)
    return sorted(found.values())


def check_folders(paths: Iterable[Path]) -> None:
    """Raise a RunError that names the first path that does not exist."""
    for path in paths:
        if not path.exists():
            raise RunError(f"{path}: no such folder; train a run first, or name the folder of one")


def find_runs(paths: Sequence[Path], *, least: int = 1, progress: Progress = SILENT) -> list[RunFolder]:
    """Every run folder at or below the given paths, behind symbolic links too, sorted, each once.

    Args:
        paths: folders.
        least: how many runs there must be.
        progress: told where there may be runs that cannot be reached.

    Raises:
        RunError: a path does not exist, or fewer than `least` runs lie below them.
    """
    check_folders(paths)
    found = [RunFolder(folder) for folder in folders_below(paths, progress=progress)]
    runs = [run for run in found if run.config.is_file()]
    if len(runs) < least:
        raise RunError(f"{', '.join(map(str, paths))}: no run below; `fundus-seg train` makes one")
    return runs


def trained_runs(paths: Sequence[Path], *, least: int = 1, progress: Progress = SILENT) -> list[RunFolder]:
    """The trained runs at or below the given paths; those that failed or are not trained to their end are left out.

    Raises:
        RunError: as `find_runs`, or fewer than `least` are trained.
    """
    runs = find_runs(paths, least=least, progress=progress)
    trained = [run for run in runs if run.has("TRAINED")]
    if len(trained) < least:
        raise RunError(f"{runs[0].path}: not trained to its end; the same `fundus-seg train` command goes on with it")
    rest = [run for run in runs if run not in trained]
    failed = [run.path for run in rest if run.has("FAILED")]
    unfinished = [run.path for run in rest if not run.has("FAILED")]
    progress.left_out("run", "failed", failed, "`fundus-seg benchmark --retry-failed` takes them up again")
    fix = "the same `fundus-seg train` command goes on with it"
    progress.left_out("run", "not trained to the end", unfinished, fix)
    return trained
