"""`fundus-seg evaluate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.predict import OP_HELP
from fundus_seg_cli.table import METRICS_HELP, Format, print_table


class Checkpoint(StrEnum):
    """Which weights."""

    best = "best"
    last = "last"
    oracle = "oracle"


class Selection(StrEnum):
    """Whose checkpoints."""

    all = "all"


class Inference(StrEnum):
    """What the network sees."""

    resize = "resize"
    native = "native"


def evaluate(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs, or folders with runs below (default: runs).")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder, YAML file of domains, or 'phantom' (default: the run's own)."),
    ] = None,
    checkpoint: Annotated[
        Checkpoint | None, typer.Option(help="Which weights (default: best); oracle needs train --probe-holdout.")
    ] = None,
    selection: Annotated[
        Selection | None,
        typer.Option(
            help="all: last, best and oracle of every run side by side, and what choosing on the scored cases "
            "themselves would seem to gain."
        ),
    ] = None,
    in_domain: Annotated[
        bool,
        typer.Option(
            "--in-domain", help="Score the source domains too, on test cases that chose no checkpoint; a table besides."
        ),
    ] = False,
    scoring: Annotated[str | None, typer.Option(help="Score by this preset (default: the run's own protocol).")] = None,
    inference: Annotated[
        Inference | None,
        typer.Option(
            help="The network sees photographs resized to its training size, or as they are: a probe of scales it was "
            "not trained on (default: the protocol's own, resize)."
        ),
    ] = None,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="How tables are written; csv: a number a column, a row a cell, of --in-domain a row a run.",
        ),
    ] = Format.rich,
    metrics: Annotated[str, typer.Option(help=METRICS_HELP)] = "dsc,hd,hd95",
    clinical: Annotated[
        bool, typer.Option("--clinical", help="A table of cup-to-disc ratios and impossible anatomy besides.")
    ] = False,
    overlays: Annotated[
        int, typer.Option(min=0, help="Contours to draw per run, from the worst case to the best.")
    ] = 0,
    plots: Annotated[
        Path | None,
        typer.Option(help="Folder for box plots, Bland-Altman plots and learning curves, as PNG and SVG."),
    ] = None,
    op: Annotated[list[str] | None, typer.Option(help=f"{OP_HELP} Repeat for more.")] = None,
) -> None:
    """Score runs on their unseen domain, write the case records, print the table.

    What `fundus-seg score --out` left in the same folders stands beside them.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.errors import UsageError
    from fundus_seg.evaluation.metric_table import check_metrics
    from fundus_seg.evaluation.runs import evaluate_runs
    from fundus_seg.plugins import load
    from fundus_seg.reporting.clinical import clinical_table
    from fundus_seg.reporting.in_domain import domain_gap_table
    from fundus_seg.reporting.leak import leak_table
    from fundus_seg.reporting.plots import write_plots
    from fundus_seg.reporting.tables import by_kind, score_table
    from fundus_seg_cli.progress import Terminal

    if selection and checkpoint:
        raise UsageError("--checkpoint with --selection all, which scores every one: leave one of the two out")
    for name in op or []:
        load(name)
    progress = Terminal()
    names = [metric.strip() for metric in metrics.split(",")]
    check_metrics(names)
    found = evaluate_runs(
        runs or [Path("runs")],
        data,
        checkpoints="all" if selection else (checkpoint or Checkpoint.best).value,
        in_domain=in_domain,
        scoring=load_scoring(scoring) if scoring else None,
        inference=inference.value if inference else None,
        overlays=overlays,
        progress=progress,
    )
    kinds = by_kind(found.evaluations)
    for kind in kinds:
        print_table(score_table(kind, names), form)
    if clinical:
        for kind in kinds:
            print_table(clinical_table(kind), form)
    if selection:
        for kind in kinds:
            if leak := leak_table(kind):
                print_table(leak, form)
    for phantom in (False, True):
        if pairs := [pair for pair in found.pairs if pair[0].meta.phantom is phantom]:
            print_table(domain_gap_table(pairs), form)
    if plots:
        progress.line(f"{len(write_plots(found.evaluations, plots, names))} files of plots in {plots}")
