"""`fundus-seg benchmark`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fundus_seg_cli.table import Format, print_table
from fundus_seg_cli.train import DATA_HELP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fundus_seg.evaluation.records import Evaluation
    from fundus_seg.experiments.executors import Executor
    from fundus_seg.experiments.grid_run import Cell
    from fundus_seg.progress import Progress


class Engine(StrEnum):
    """Who works on the cells."""

    serial = "serial"
    processes = "processes"
    ray = "ray"


def benchmark(
    holdouts: Annotated[
        str | None, typer.Option(help="Unseen domains, as A,B,C,D (default: every domain of the data).")
    ] = None,
    ops: Annotated[str, typer.Option(help="Operators of `train --op`, separated by commas.")] = "conv,depthwise,tvconv",
    runs: Annotated[int, typer.Option(min=1, help="Seeds of each cell of the table.")] = 10,
    seed_from: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    config: Annotated[str, typer.Option(help="Preset, or a YAML file of what differs from one.")] = "paper",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of every run, as optim.lr=3e-4; repeat for more.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting with several values, as optim.lr=1e-3,3e-4 or optim.drop_epochs=[30],[20,30]; each makes a "
            "column of its own. Repeat for all combinations."
        ),
    ] = None,
    executor: Annotated[
        Engine,
        typer.Option(help="One run after the other in this process, several worker processes, or a Ray cluster."),
    ] = Engine.processes,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes (default: what cores and free memory allow)."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster (default: $RAY_ADDRESS, or the one of this machine).")
    ] = None,
    gpus: Annotated[
        float, typer.Option("--gpus-per-run", min=0, help="With Ray: of 0.25, four runs share a GPU; 0 for the CPU.")
    ] = 0,
    probe_holdout: Annotated[
        bool, typer.Option("--probe-holdout", help="As `train --probe-holdout`, for every run.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take up again the runs that failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every run and where it stands, estimate the rest, run nothing.")
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="Folder for the plots of `evaluate --plots`.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How the tables are written.")] = Format.rich,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
) -> None:
    """Leave one domain out: train and evaluate every unseen domain with every operator and seed; print the tables.

    The same command again goes on wherever it was stopped, and so does a second copy of it, on this machine or on
    another that shares the folder: they part the work. A run that fails is passed over, and told at the end. Each run
    computes with one thread unless --set train.threads says otherwise, so that its bits depend on nothing beside it.
    """
    from itertools import chain

    from fundus_seg.data import open_root
    from fundus_seg.errors import RunError
    from fundus_seg.experiments.grid import prepare, run_grid
    from fundus_seg.experiments.grid_run import forgive, read_scores
    from fundus_seg.experiments.leave_one_out import plan
    from fundus_seg.reporting.overview import overview
    from fundus_seg_cli.grid_progress import GridProgress
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    cells = plan(
        open_root(data, progress=progress),
        out,
        ops=_names(ops),
        seeds=range(seed_from, seed_from + runs),
        holdouts=_names(holdouts) if holdouts else None,
        vary=vary or [],
        config=config,
        overrides=overrides or [],
        probe=probe_holdout,
    )
    if dry_run:
        at_once = 1 if executor is Engine.serial else len(_slots(cells, jobs))
        print_table(overview(cells, at_once, retry_failed=retry_failed), form)
        return
    engine = _executor(executor, cells, jobs, address, gpus)
    if retry_failed:
        for cell in cells:
            forgive(cell)
    failures, done = [], []
    faults = prepare(cells, progress=progress)
    for fault in dict.fromkeys(f"{fault.reason}\n{fault.details}" for fault in faults.values() if fault.details):
        progress.line(fault)
    with GridProgress(cells, progress.console) as shown:
        for cell, outcome in chain(faults.items(), run_grid([cell for cell in cells if cell not in faults], engine)):
            shown.tell(cell, outcome)
            if outcome.state == "failed":
                failures.append(f"{cell.name}: {outcome.reason}")
            else:
                done.append(cell)
    evaluations = []
    for cell in sorted(done, key=cells.index):
        try:
            evaluations.append(read_scores(cell))
        except RunError as error:
            failures.append(f"{cell.name}: {error}")
    told = "".join(f"\n  {failure}" for failure in failures)
    told = f"{len(failures)} of {len(cells)} runs failed; --retry-failed takes them up again:{told}"
    try:
        _print_tables(evaluations, form, plots, progress)
    except Exception:
        if failures:
            progress.line(told)  # the error that ends the command tells of the tables alone
        raise
    if failures:
        raise RunError(told)


def _print_tables(evaluations: Sequence[Evaluation], form: Format, plots: Path | None, progress: Progress) -> None:
    """The table, each pair of its columns compared, and the plots."""
    from itertools import combinations

    from fundus_seg.errors import ProtocolError
    from fundus_seg.reporting.compare import operators_table
    from fundus_seg.reporting.plots import write_plots
    from fundus_seg.reporting.tables import build_table, build_tidy_table, in_order, tables

    tidy = form is Format.csv
    for table in tables(evaluations, build=build_tidy_table if tidy else build_table):
        print_table(table, form)
    columns = list(dict.fromkeys(column for column, _ in in_order(evaluations)))
    for pair in combinations(reversed(columns), 2):
        try:
            print_table(operators_table(evaluations, pair, tidy=tidy), form)
        except ProtocolError as error:  # of a grid that is not whole, nothing in common
            progress.line(f"{pair[0]} and {pair[1]}: {error}")
    if plots and evaluations:
        progress.line(f"{len(write_plots(evaluations, plots))} files of plots in {plots}")


def _executor(name: Engine, cells: Sequence[Cell], jobs: int | None, address: str | None, gpus: float) -> Executor:
    from fundus_seg.errors import UsageError
    from fundus_seg.experiments.executors import processes, serial

    if name is Engine.ray:
        from fundus_seg.experiments.ray_executor import ray_executor

        cores = max(cell.threads * cell.config.train.devices for cell in cells)
        return ray_executor(address=address, cpus=cores, gpus=gpus)
    if name is Engine.serial:
        return serial
    devices = max(cell.config.train.devices for cell in cells)
    if devices > 1:
        raise UsageError(
            f"train.devices {devices} with --executor processes: its workers start no processes of their own; "
            "take --executor serial"
        )
    return processes(_slots(cells, jobs))


def _slots(cells: Sequence[Cell], jobs: int | None) -> list[int | None]:
    from fundus_seg.experiments.capacity import gpu_count, worker_slots

    return worker_slots(cells, gpu_count(), jobs)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
