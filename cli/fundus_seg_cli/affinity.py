"""`fundus-seg affinity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg.builtins import CheckpointName
from fundus_seg.errors import UsageError
from fundus_seg_cli.options import Format, Strict, Trust
from fundus_seg_cli.table import print_report


def affinity(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Run folders, folders with runs below them, or checkpoint files (default: runs)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for affinity.png and .svg, affinity.csv, and affinity.md with caption and table."),
    ] = None,
    checkpoint: Annotated[CheckpointName, typer.Option(help="Checkpoint of each run that is measured.")] = "best",
    over_training: Annotated[
        bool,
        typer.Option(
            "--over-training",
            help="With --out, also draw how affinity maps, affines and kernels moved, of runs that were trained with "
            "--set train.keep_affinity=true.",
        ),
    ] = False,
    form: Format = "rich",
    trust: Trust = None,
    strict: Strict = False,
) -> None:
    """Show what operators with a kernel for each position learned: tvconv, linear, untied.

    How much their kernels differ between positions, and what remains of it without each way by which position enters:
    the affinity maps, the affines of the generator's norms, its zero padding. What is measured is kept in each run's
    folder, where `fundus-seg report` finds it.
    """
    from fundus_seg.plugins import load
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    if over_training and not out:
        raise UsageError("--over-training draws figures: name their folder with --out DIR")
    for name in trust or []:
        load(name)

    from fundus_seg.evaluation.affinity import measure_kernels  # torch, only once the arguments are right
    from fundus_seg.reporting.affinity import affinity_reports
    from fundus_seg.reporting.affinity_figures import write_affinity

    measured = measure_kernels(runs or ["runs"], checkpoint=checkpoint, progress=progress)
    for report in affinity_reports(measured):
        print_report(report, form, progress.told)
    if out:
        written = write_affinity(measured, out, over_training=over_training)
        progress.line(f"written: {', '.join(map(str, written))}")
    progress.check(strict=strict)
