"""`fundus-seg compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.evaluate import Checkpoint
from fundus_seg_cli.table import Format, print_table


def compare(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs, or folders with runs below (default: runs).")] = None,
    ops: Annotated[
        str | None,
        typer.Option(help="Two operators, as tvconv,depthwise, named as in the table (default: the two there are)."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Compare with a published table instead: tvconv2022, or a CSV file.")
    ] = None,
    metric: Annotated[str, typer.Option(help="That operators are compared by.")] = "dsc",
    difference: Annotated[
        float, typer.Option(help="Difference, in the metric's unit, to say the needed runs for.")
    ] = 1.0,
    checkpoint: Annotated[Checkpoint, typer.Option(help="Whose scores.")] = Checkpoint.best,
    scoring: Annotated[
        str | None, typer.Option(help="Scored by this preset or YAML file (default: the run's own protocol).")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How the table is written.")] = Format.rich,
) -> None:
    """Compare two operators with tests, or evaluated runs with a published table.

    What `fundus-seg score --out` left in the same folders is an operator too, under its --name.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.errors import UsageError
    from fundus_seg.evaluation.external import comparable, external_evaluations
    from fundus_seg.reporting.compare import operators_table
    from fundus_seg.reporting.published import read_published
    from fundus_seg.reporting.reproduction import published_table
    from fundus_seg.reporting.runs import scored_runs
    from fundus_seg_cli.progress import Terminal

    if to and ops:
        raise UsageError("--ops with --to: every operator of the published table is compared; leave one option out")
    published = read_published(to) if to else None
    protocol = load_scoring(scoring) if scoring else None
    folders, progress = runs or [Path("runs")], Terminal()
    elsewhere = external_evaluations(folders)
    if published and elsewhere:
        progress.line(f"{len(elsewhere)} scores of masks from elsewhere left out: of an unknown recipe")
    found = scored_runs(
        folders,
        checkpoint=checkpoint.value,
        scoring=protocol,
        least=0 if elsewhere and not published else 1,
        progress=progress,
    )
    tidy = form is Format.csv
    if published:
        print_table(published_table(found, published, tidy=tidy), form)
    else:
        names = [name.strip() for name in ops.split(",")] if ops else None
        own = [run.evaluation for run in found]
        evaluations = [*own, *comparable(elsewhere, own, progress=progress)]
        print_table(operators_table(evaluations, names, metric=metric, sought=difference, tidy=tidy), form)
