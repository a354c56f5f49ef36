"""A grid from wherever it stands to its end, beside any number of copies of this command on the same folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError
from fundus_seg.experiments.executors import Executor
from fundus_seg.experiments.grid_run import Cell, Outcome, failed, mark_failed, settled, status
from fundus_seg.experiments.work import run_cell
from fundus_seg.hardware import gpu_name, machine_choices
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.record import take_up
from fundus_seg.training.run_data import load_run_data

_POLL = 2.0
"""Seconds between two looks at cells that other processes are at."""


def prepare(cells: Sequence[Cell], *, progress: Progress = SILENT) -> dict[Cell, Outcome]:
    """Decode and resize every photograph once, and compare each run that is there, done or not, with its cell.

    Nothing is marked in the folders of cells whose photographs cannot be used: they are looked at anew at each start.

    Returns:
        Those cells among the ones that are still to be done, failed.

    Raises:
        RunError: a folder holds a run of other settings or inputs, or one that was probed otherwise.
        UsageError: a plugin that cannot be loaded.
        DataError: the photographs of no cell can be used, and none is done.
    """
    alike: dict[object, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(_reads(cell), []).append(cell)
    errors: list[DataError] = []
    faults: dict[Cell, Outcome] = {}
    machine, gpu = machine_choices(), gpu_name()
    for group in alike.values():
        try:
            root = open_root(group[0].data, progress=progress)
            inputs = load_run_data(group[0].config, root, progress=progress).inputs
        except DataError as error:
            if needed := [cell for cell in group if settled(cell) is None]:
                errors.append(error)
                faults |= dict.fromkeys(needed, failed(error))
            continue
        for cell in group:
            take_up(
                cell.folder,
                cell.config,
                inputs,
                probed=cell.probe,
                machine=machine,
                gpu=gpu,
                progress=SILENT,
            )
    if errors and len(errors) == len(alike) and not any(status(cell) == "done" for cell in cells):
        raise errors[0]
    return faults


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
    """Equal for cells of the same inputs: photographs read in the same way, encoder weights, plugins."""
    config = cell.config
    plugins = tuple(config.plugins().items())
    return cell.data, config.holdout, config.data, config.train.selection, config.model.encoder_weights, plugins
