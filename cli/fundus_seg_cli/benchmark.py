"""`fundus-seg benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fundus_seg_cli.options import (
    DEFAULT_OPERATORS,
    Address,
    Config,
    Data,
    Format,
    Labels,
    Operators,
    Out,
    Overrides,
    Plots,
    ProbeHoldout,
    Strict,
    labels,
    names,
)
from fundus_seg_cli.table import print_report


def benchmark(
    holdouts: Annotated[
        str | None,
        typer.Option(help="Unseen domains, separated by commas, as A,B,C,D (default: every domain of the data)."),
    ] = None,
    ops: Operators = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Ready columns in place of --ops: operators, ablations or sensitivity, or a YAML file of your own "
            "(docs/suites.md). It ends in one table of scores and costs; with --plots, of scores against costs too."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Number of runs, each with a seed of its own, per cell.")] = 10,
    seed_from: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    data: Data = None,
    config: Config = "paper",
    overrides: Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Setting with several values, as optim.lr=1e-3,3e-4, each of which makes a column of its own. Commas "
            "within brackets do not separate values. Repeat for all combinations."
        ),
    ] = None,
    executor: Annotated[
        Literal["serial", "processes", "ray"],
        typer.Option(help="Train one run after the other in this process, in several processes, or on a Ray cluster."),
    ] = "processes",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of worker processes (default: what cores and free memory allow)."),
    ] = None,
    address: Address = None,
    gpus_per_run: Annotated[
        float,
        typer.Option(min=0, help="With Ray: the share of a GPU for each run. 0.25 lets four runs share one; 0: CPU."),
    ] = 0,
    probe_holdout: ProbeHoldout = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also take up the runs that failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every run and its state, estimate the rest, and train nothing.")
    ] = False,
    plots: Plots = None,
    label: Labels = None,
    form: Format = "rich",
    out: Out = Path("runs"),
    strict: Strict = False,
) -> None:
    """Leave one domain out: train and evaluate every unseen domain with every operator and seed; print the tables.

    The same command again continues wherever it was stopped. A second copy, here or on a machine that shares the
    folder, shares the work. Failed runs are skipped and listed at the end. Each run computes with one thread unless
    --set train.threads says otherwise, so that its bits depend on nothing beside it.
    """
    from fundus_seg.data import open_root
    from fundus_seg.errors import UsageError, counted
    from fundus_seg.experiments import choose_executor, plan, read_suite, run_experiment
    from fundus_seg.experiments.executors import runs_at_once
    from fundus_seg_cli.progress import Terminal

    if suite is not None and ops is not None:
        raise UsageError("--ops with --suite: a suite names its operators; give one of the two")
    progress, renamed = Terminal(), labels(label or [])
    chosen = read_suite(suite) if suite is not None else None
    root = open_root(data, progress=progress)
    planned = plan(
        root,
        out,
        ops=names(DEFAULT_OPERATORS if ops is None else ops),
        suite=chosen,
        seeds=range(seed_from, seed_from + runs),
        holdouts=names(holdouts) if holdouts is not None else None,
        vary=vary or [],
        config=config,
        overrides=overrides or [],
        probe=probe_holdout,
        progress=progress,
    )

    from fundus_seg.reporting import experiment_reports, overview_table, with_labels
    from fundus_seg_cli.grid_progress import GridProgress
    from fundus_seg_cli.suite import suite_reports

    if dry_run:
        at_once = runs_at_once(executor, planned, jobs)
        print_report(overview_table(planned, at_once, retry_failed=retry_failed), form)
        return
    result = run_experiment(
        planned,
        choose_executor(executor, planned, jobs=jobs, address=address, gpus_per_run=gpus_per_run),
        retry_failed=retry_failed,
        progress=progress,
        watch=GridProgress(planned, progress.console),
    )
    failed = [failure.run.name for failure in result.failures]
    progress.left_out("run", "failed", failed, "--retry-failed takes them up again")
    try:
        evaluations = with_labels(result.evaluations, renamed)
        reports = (
            suite_reports(chosen, root, planned, evaluations, out=out, plots=plots, progress=progress)
            if chosen
            else experiment_reports(evaluations, progress=progress)
        )
        for report in reports:
            print_report(report, form, progress.told)
        if plots and evaluations:
            from fundus_seg.reporting import write_plots  # imports Matplotlib

            progress.line(f"{counted(len(write_plots(evaluations, plots)), 'file')} of plots in {plots}")
    except BaseException:
        if result.failures:
            progress.line(result.failure_text)  # the error that ends the command tells of the tables alone
        raise
    result.check()
    progress.check(strict=strict)
