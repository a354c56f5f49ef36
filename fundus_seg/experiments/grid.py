"""A grid from wherever it stands to its end, beside any number of copies of this command on the same folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError
from fundus_seg.experiments.cell import Cell, Outcome, mark_failed, run_cell, settled, status
from fundus_seg.experiments.executors import Executor
from fundus_seg.progress import SILENT, Progress
from fundus_seg.training.data import load_run_data

_POLL = 2.0
"""Seconds between two looks at cells that other processes are at."""


def prepare(cells: Sequence[Cell], *, progress: Progress = SILENT) -> dict[Cell, Outcome]:
    """Decode and resize once every photograph that is still needed; the cells whose photographs cannot be used, failed.

    Nothing is marked in their folders: photographs are looked at anew at each start.

    Raises:
        DataError: those of no cell can.
    """
    needed = [cell for cell in cells if settled(cell) is None]
    first_with: dict[object, Cell] = {}
    for cell in needed:
        first_with.setdefault(_reads(cell), cell)
    errors: dict[object, DataError] = {}
    for reads, cell in first_with.items():
        try:
            load_run_data(cell.config, open_root(cell.data, progress=progress), progress=progress)
        except DataError as error:
            errors[reads] = error
    if errors and len(errors) == len(first_with):
        raise next(iter(errors.values()))
    return {cell: Outcome("failed", str(errors[_reads(cell)])) for cell in needed if _reads(cell) in errors}


def run_grid(cells: Sequence[Cell], executor: Executor) -> Iterator[tuple[Cell, Outcome]]:
    """Do what is missing, and give every cell with its outcome, `done` or `failed`, as it is known.

    Cells that are done are given at once, and so are those that failed before (`forgive` lets them be tried again).
    Those that another process is at come last: when it has done them, or has left them. Each failure is marked in the
    run's folder. Workers share the photographs that `prepare` has decoded.
    """
    waiting = list(cells)
    while waiting:
        free = [cell for cell in waiting if status(cell) != "running"]
        waiting = [cell for cell in waiting if cell not in free]
        for cell, outcome in _settle(free, executor):
            if outcome.state == "busy":
                waiting.append(cell)
            else:
                yield cell, outcome
        if waiting:
            time.sleep(_POLL)


def _settle(cells: Sequence[Cell], executor: Executor) -> Iterator[tuple[Cell, Outcome]]:
    """Each of the cells with its outcome: of those that others have settled meanwhile, theirs."""
    theirs = {cell: outcome for cell in cells if (outcome := settled(cell))}
    yield from theirs.items()
    if ours := [cell for cell in cells if cell not in theirs]:
        for cell, outcome in executor(run_cell, ours):
            if outcome.state == "failed":
                mark_failed(cell, outcome)
            yield cell, outcome


def _reads(cell: Cell) -> object:
    """Equal for cells that read the same photographs in the same way."""
    config = cell.config
    return cell.data, config.holdout, config.data, config.train.selection
