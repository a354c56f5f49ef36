"""`fundus-seg evaluate`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
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
    scoring: Annotated[
        str | None, typer.Option(help="Score by this preset or YAML file (default: the run's own protocol).")
    ] = None,
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
    from fundus_seg.builtins import CheckpointName
    from fundus_seg.config import load_scoring
    from fundus_seg.errors import UsageError
    from fundus_seg.evaluation.evaluate import evaluate as evaluate_run
    from fundus_seg.evaluation.evaluate import write_overlays
    from fundus_seg.evaluation.external import comparable, external_evaluations
    from fundus_seg.evaluation.metric_table import check_metrics
    from fundus_seg.plugins import load
    from fundus_seg.reporting.clinical import clinical_table
    from fundus_seg.reporting.in_domain import domain_gap_table, tidy_domain_gap_table
    from fundus_seg.reporting.leak import checkpoints_to_compare, leak_table
    from fundus_seg.reporting.plots import write_plots
    from fundus_seg.reporting.tables import apart, build_table, build_tidy_table, tables
    from fundus_seg.runs.folder import trained_runs
    from fundus_seg_cli.progress import Terminal

    if selection and checkpoint:
        raise UsageError("--checkpoint with --selection all, which scores every one: leave one of the two out")
    for name in op or []:
        load(name)
    progress = Terminal()
    names = [metric.strip() for metric in metrics.split(",")]
    check_metrics(names)
    protocol = load_scoring(scoring) if scoring else None
    folders = runs or [Path("runs")]
    elsewhere = external_evaluations(folders)
    score = partial(evaluate_run, scoring=protocol, inference=inference.value if inference else None, progress=progress)
    evaluations, pairs = [], []
    for run in trained_runs(folders, least=0 if elsewhere else 1, progress=progress):
        given: list[CheckpointName] = [(checkpoint or Checkpoint.best).value]
        for name in checkpoints_to_compare(run, progress=progress) if selection else given:
            evaluations.append(score(run, data, checkpoint=name))
            if in_domain:
                pairs.append((evaluations[-1], score(run, data, checkpoint=name, scored="in-domain")))
            if overlays:
                written = write_overlays(run, evaluations[-1], overlays, data, progress=progress)
                progress.line(f"{len(written)} overlays (truth red, disc green, cup blue) in {written[0].parent}")
    evaluations += comparable(elsewhere, evaluations, progress=progress)
    for table in tables(evaluations, names, build_tidy_table if form is Format.csv else build_table):
        print_table(table, form)
    for kind in apart(evaluations) if clinical else []:
        print_table(clinical_table(kind), form)
    for kind in apart(evaluations) if selection else []:
        if leak := leak_table(kind, tidy=form is Format.csv):
            print_table(leak, form)
    gap_table = tidy_domain_gap_table if form is Format.csv else domain_gap_table
    for phantom in (False, True):
        if kind_pairs := [pair for pair in pairs if pair[0].meta.phantom is phantom]:
            print_table(gap_table(kind_pairs), form)
    if plots:
        progress.line(f"{len(write_plots(evaluations, plots, names))} files of plots in {plots}")
