"""`fundus-seg evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fundus_seg.builtins import CheckpointName, Inference
from fundus_seg_cli.options import Format, Metrics, Plots, RunData, Runs, Scoring, Trust, names
from fundus_seg_cli.table import print_table


def evaluate(
    runs: Runs = None,
    data: RunData = None,
    checkpoint: Annotated[
        CheckpointName | None,
        typer.Option(help="Checkpoint to score (default: best). oracle needs `fundus-seg train --probe-holdout`."),
    ] = None,
    all_selections: Annotated[
        bool,
        typer.Option(
            "--all-selections",
            help="Score last, best and oracle of every run side by side, and show what choosing on the scored cases "
            "themselves would seem to gain.",
        ),
    ] = False,
    in_domain: Annotated[
        bool,
        typer.Option(
            "--in-domain",
            help="Also score the source domains, on test cases that chose no checkpoint, and print a table of them.",
        ),
    ] = False,
    scoring: Scoring = None,
    inference: Annotated[
        Inference | None,
        typer.Option(
            help="resize: the network sees photographs resized to its training size. native: it sees them at their own "
            "size, which tests it at scales that it was not trained on (default: what the protocol says)."
        ),
    ] = None,
    form: Format = "rich",
    metrics: Metrics = "dsc,hd,hd95",
    clinical: Annotated[
        bool, typer.Option("--clinical", help="Also print a table of cup-to-disc ratios and impossible anatomy.")
    ] = False,
    overlays: Annotated[
        int, typer.Option(min=0, help="Number of contours to draw per run, from the worst case to the best.")
    ] = 0,
    plots: Plots = None,
    trust: Trust = None,
) -> None:
    """Score runs on their unseen domain, write the case records, print the table.

    What `fundus-seg score --out` wrote into the same folders stands beside them.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.errors import UsageError
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

    if all_selections and checkpoint:
        raise UsageError("--checkpoint with --all-selections, which scores every one: leave one of the two out")
    shown = names(metrics)
    check_metrics(shown)
    for name in trust or []:
        load(name)
    progress = Terminal()
    protocol = load_scoring(scoring) if scoring else None
    folders = runs or [Path("runs")]
    elsewhere = external_evaluations(folders)
    found = trained_runs(folders, least=0 if elsewhere else 1, progress=progress)

    from fundus_seg.evaluation.evaluate import evaluate as evaluate_run
    from fundus_seg.evaluation.evaluate import write_overlays

    score = partial(evaluate_run, scoring=protocol, inference=inference, progress=progress)
    evaluations, pairs = [], []
    for run in found:
        given: list[CheckpointName] = [checkpoint or "best"]
        for name in checkpoints_to_compare(run, progress=progress) if all_selections else given:
            evaluations.append(score(run, data, checkpoint=name))
            if in_domain:
                pairs.append((evaluations[-1], score(run, data, checkpoint=name, scored="in-domain")))
            if overlays:
                written = write_overlays(run, evaluations[-1], overlays, data, progress=progress)
                progress.line(f"{len(written)} overlays (truth red, disc green, cup blue) in {written[0].parent}")
    evaluations += comparable(elsewhere, evaluations, progress=progress)
    for table in tables(evaluations, shown, build_tidy_table if form == "csv" else build_table):
        print_table(table, form)
    if clinical:
        for kind in apart(evaluations):
            print_table(clinical_table(kind), form)
    if all_selections:
        for kind in apart(evaluations):
            if leak := leak_table(kind, tidy=form == "csv"):
                print_table(leak, form)
    gap_table = tidy_domain_gap_table if form == "csv" else domain_gap_table
    for phantom in (False, True):
        if kind_pairs := [pair for pair in pairs if pair[0].meta.phantom is phantom]:
            print_table(gap_table(kind_pairs), form)
    if plots:
        progress.line(f"{len(write_plots(evaluations, plots, shown))} files of plots in {plots}")
