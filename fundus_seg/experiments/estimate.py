"""What the rest of an experiment will cost, estimated from its finished runs, and how far each run has come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fundus_seg.errors import RunError
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.runs.epochs import read_epochs
from fundus_seg.runs.folder import RunFolder


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of the runs that are left.

    Attributes:
        runs: how many runs are left.
        seconds: how long they will train, one after the other, without those of the columns in `unknown`.
        bytes: how much disk space they will take, likewise.
        unknown: labels of the columns that have no finished run to estimate from.
    """

    runs: int
    seconds: float
    bytes: int
    unknown: tuple[str, ...]


def epoch_seconds(folder: RunFolder) -> list[float]:
    """How long each epoch of a run took, for the epochs trained so far."""
    try:
        return [row["seconds"] for row in read_epochs(folder.metrics)]
    except (RunError, KeyError):
        return []


def estimate(runs: Sequence[GridRun], left: Sequence[GridRun]) -> Estimate:
    """What the runs in `left` will cost, each estimated by the mean of the finished runs of its column.

    Finished runs of other seeds count too, even those of another experiment. Of a run that was begun only the rest is
    counted.

    Args:
        runs: all runs of the experiment.
        left: those of them that are still to be done.
    """
    finished: dict[str, set[RunFolder]] = {}
    for run in runs:
        found = (RunFolder(marker.parent) for marker in run.folder.path.parent.glob("seed-*/TRAINED"))
        finished.setdefault(run.operator, set()).update(found)
    seconds = size = 0.0
    for run in left:
        if alike := finished[run.operator]:
            remaining = 1 - len(epoch_seconds(run.folder)) / run.config.train.epochs
            seconds += remaining * _mean(sum(epoch_seconds(folder)) for folder in alike)
            size += _mean(_bytes(folder) for folder in alike)
    unknown = tuple(dict.fromkeys(run.label for run in left if not finished[run.operator]))
    return Estimate(len(left), seconds, int(size), unknown)


def _bytes(folder: RunFolder) -> int:
    return sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
