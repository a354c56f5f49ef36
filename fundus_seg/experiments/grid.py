"""Runs taken from wherever they stand to their end, beside any number of copies of this command on the same folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from fundus_seg.config import MachineSettings
from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError, RunError
from fundus_seg.experiments.executors import Executor
from fundus_seg.experiments.grid_run import GridRun, Outcome, record_failure, settled, status
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.record import take_up
from fundus_seg.training.run_data import load_run_data, new_provenance, seen_by_start

_POLL = 2.0
"""Seconds between two looks at runs that other processes are working on."""


def prepare(runs: Sequence[GridRun], *, progress: Progress = SILENT) -> dict[GridRun, Outcome]:
    """Decode and resize every photograph once, and check that each existing run, done or not, is the planned one.

    Runs whose photographs cannot be used are not marked as failed: their photographs are read again at each start.

    Returns:
        The runs whose photographs cannot be used, of those that are still to be done, each with its failure.

    Raises:
        RunError: a folder holds a run with other settings or inputs, or one that was probed otherwise; or the holdout
            of a run is not unseen by the network that the run starts from.
        CheckpointError: the weights that a run starts from cannot be had.
        UsageError: a plugin cannot be loaded.
        DataError: no run is done, and none has photographs that can be used.
    """
    _check_starts(runs)
    alike: dict[object, list[GridRun]] = {}
    for run in runs:
        alike.setdefault(_inputs_of(run), []).append(run)
    errors: list[DataError] = []
    faults: dict[GridRun, Outcome] = {}
    for group in alike.values():
        try:
            root = open_root(group[0].data, progress=progress)
            data = load_run_data(group[0].config, root, progress=progress)
        except DataError as error:
            if needed := [run for run in group if settled(run) is None]:
                errors.append(error)
                faults |= dict.fromkeys(needed, Outcome.of_error(error))
            continue
        for run in group:
            if not run.folder.begun and (why := seen_by_start(run.config, data, new_provenance(run.config, data))):
                raise RunError(f"{run.name}: {why}: {run.config.holdout} is not unseen, as each holdout must be")
            take_up(run.folder, run.config, data.inputs, probed=run.probe, machine=_machine_choices)
    if errors and len(errors) == len(alike) and not any(status(run) == "done" for run in runs):
        raise errors[0]
    return faults


def run_grid(runs: Sequence[GridRun], executor: Executor) -> Iterator[tuple[GridRun, Outcome]]:
    """Do what is missing, and give each run with its outcome, `done` or `failed`, as soon as it is known.

    Runs that are done come at once, and so do those that failed before (after `clear_failure` they are tried again).
    Runs that another process works on come last, when it has finished or left them. Each failure is recorded in the
    run's folder. The workers share the photographs that `prepare` has decoded.
    """
    waiting = list(runs)
    while waiting:
        free = [run for run in waiting if status(run) != "running"]
        waiting = [run for run in waiting if run not in free]
        for run, outcome in _settle(free, executor):
            if outcome.state == "busy":
                waiting.append(run)
            else:
                yield run, outcome
        if waiting:
            time.sleep(_POLL)


def _settle(runs: Sequence[GridRun], executor: Executor) -> Iterator[tuple[GridRun, Outcome]]:
    """Each run with its outcome; runs that other processes have settled meanwhile keep that outcome."""
    theirs = {run: outcome for run in runs if (outcome := settled(run))}
    yield from theirs.items()
    if ours := [run for run in runs if run not in theirs]:
        from fundus_seg.experiments.work import complete_run  # only now torch and lightning

        for run, outcome in executor(complete_run, ours):
            if outcome.state == "failed":
                record_failure(run, outcome)
            yield run, outcome


def _machine_choices() -> MachineSettings:
    from fundus_seg.hardware import machine_choices  # imports torch, only for a new run

    return machine_choices()


def _inputs_of(run: GridRun) -> object:
    """Equal for runs with the same inputs: photographs read in the same way, weights that they start from, plugins."""
    config, model = run.config, run.config.model
    weights = model.encoder_weights, model.start
    plugins = tuple(config.plugins().items())
    return run.data, config.holdout, config.data, config.train.selection, *weights, plugins


def _check_starts(runs: Sequence[GridRun]) -> None:
    """Refuse weights that cannot be had, before a photograph is read; runs that have trained need them no more."""
    starts = {}
    for run in runs:
        model = run.config.model
        if {model.encoder_weights, model.start} != {"none"} and not run.folder.begun:
            network = tuple(run.config.network_spec().items()) if model.start != "none" else model.encoder
            starts[network, model.encoder_weights, model.start] = run.config
    if starts:
        from fundus_seg.training.start import check_start  # imports torch, only for new runs

        for config in starts.values():
            check_start(config)
