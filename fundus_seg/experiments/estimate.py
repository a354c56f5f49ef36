"""What a grid will cost, from the runs that are finished; how much of it is done, from those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fundus_seg.errors import RunError
from fundus_seg.experiments.grid_run import Cell
from fundus_seg.runs.folder import RunFolder, read_epochs


@dataclass(frozen=True)
class Estimate:
    """Of the cells that are not done.

    Attributes:
        cells: how many.
        seconds: that they train, one after the other; 0 for those in `unknown`.
        bytes: that they will take on disk, likewise.
        unknown: operators of which no run is finished, as folders name them.
    """

    cells: int
    seconds: float
    bytes: int
    unknown: tuple[str, ...]


def epoch_seconds(run: RunFolder) -> list[float]:
    """How long each epoch of a run took, as far as it is trained."""
    try:
        return [row["seconds"] for row in read_epochs(run.metrics)]
    except (RunError, KeyError):
        return []


def estimate(cells: Sequence[Cell], todo: Sequence[Cell]) -> Estimate:
    """What `todo`, of the `cells` of a grid, will cost: each the mean of the finished runs of its operator.

    Finished runs of other seeds, which may be of another grid, count too. A run that is begun counts for what is left.
    """
    runs: dict[str, set[RunFolder]] = {}
    for cell in cells:
        found = (RunFolder(marker.parent) for marker in cell.folder.path.parent.glob("seed-*/TRAINED"))
        runs.setdefault(_operator(cell), set()).update(found)
    seconds = size = 0.0
    for cell in todo:
        finished = runs[_operator(cell)]
        if not finished:
            continue
        left = 1 - len(epoch_seconds(cell.folder)) / cell.config.train.epochs
        seconds += left * _mean(sum(epoch_seconds(run)) for run in finished)
        size += _mean(_bytes(run) for run in finished)
    unknown = tuple(dict.fromkeys(_operator(cell) for cell in todo if not runs[_operator(cell)]))
    return Estimate(len(todo), seconds, int(size), unknown)


def _operator(cell: Cell) -> str:
    return cell.folder.path.parent.name


def _bytes(run: RunFolder) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
