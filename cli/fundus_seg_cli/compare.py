"""`fundus-seg compare`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.options import (
    Checkpoint,
    Ensemble,
    Format,
    Labels,
    NetworkViews,
    Runs,
    Scoring,
    Strict,
    labels,
    names,
)
from fundus_seg_cli.table import print_report


def compare(
    runs: Runs = None,
    ops: Annotated[
        str | None,
        typer.Option(
            help="Two operators, as tvconv,depthwise, with the names they have in the table; mean-mask is the floor "
            "(default: the two there are)."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Compare with a published table instead: tvconv2022, or a CSV file.")
    ] = None,
    best_of: Annotated[
        bool,
        typer.Option(
            "--best-of",
            help="Of the settings that were tried of an operator (`benchmark --vary`), take those that source "
            "validation prefers, for each unseen domain; show what was tried, and correct tests and intervals for it.",
        ),
    ] = False,
    metric: Annotated[str | None, typer.Option(help="Metric to compare the operators by (default: dsc).")] = None,
    difference: Annotated[
        float | None,
        typer.Option(
            help="Difference, in the metric's unit, for which the needed number of runs is estimated (default: 1)."
        ),
    ] = None,
    checkpoint: Checkpoint = "best",
    scoring: Scoring = None,
    ensemble: Ensemble = False,
    views: NetworkViews = None,
    label: Labels = None,
    form: Format = "rich",
    strict: Strict = False,
) -> None:
    """Compare two operators with tests, or evaluated runs with a published table.

    What `fundus-seg score --out` wrote into the same folders is compared too, under the name that --name gave it.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.errors import UsageError
    from fundus_seg.evaluation.metric_table import check_metrics
    from fundus_seg.runs.folder import check_folders
    from fundus_seg_cli.progress import Terminal

    given = {"--ops": ops, "--best-of": best_of or None, "--metric": metric, "--difference": difference}
    if to and (unused := [option for option, value in given.items() if value is not None]):
        raise UsageError(
            f"{', '.join(unused)} with --to: the published table says which operators and metrics are compared, and no "
            "number of runs is estimated; leave one option out"
        )
    if best_of and checkpoint != "best":
        raise UsageError(
            "--best-of with --checkpoint: settings are chosen by what chose `best`; leave --checkpoint out"
        )
    if ensemble and (to or best_of):
        raise UsageError(f"--ensemble with {'--to' if to else '--best-of'}, which is of single runs: leave one out")
    check_metrics([metric or "dsc"])
    renamed = labels(label or [])
    protocol = load_scoring(scoring) if scoring else None
    folders, progress = runs or [Path("runs")], Terminal()
    published = None
    if to:
        from fundus_seg.reporting.published import read_published

        published = read_published(to)
    check_folders(folders)

    from fundus_seg.evaluation.external import external_evaluations  # pandas, only once the arguments are right
    from fundus_seg.reporting.best_of import search, search_table
    from fundus_seg.reporting.compare import comparable_columns, operators_table
    from fundus_seg.reporting.frames import with_labels
    from fundus_seg.reporting.reproduction import published_table
    from fundus_seg.reporting.runs import scored_runs

    elsewhere = external_evaluations(folders)
    if (published or best_of) and elsewhere:
        paths = [evaluation.path for evaluation in elsewhere]
        progress.left_out("score", "of masks that another tool made, whose recipe is unknown", paths)
        elsewhere = []
    found = scored_runs(
        folders,
        checkpoint=checkpoint,
        scoring=protocol,
        ensemble=ensemble,
        views=views,
        least=0 if elsewhere else 1,
        progress=progress,
    )
    if published:
        scores = with_labels([run.evaluation for run in found], renamed)
        found = [replace(run, evaluation=each) for run, each in zip(found, scores, strict=True)]
        print_report(published_table(found, published), form, progress.told)
    else:
        scores = with_labels([*(run.evaluation for run in found), *elsewhere], renamed)
        tried = None
        if best_of:
            searched = search(scores)
            print_report(search_table(scores, searched, metric or "dsc"), form, progress.told)
            scores, tried = list(searched.evaluations), searched.tried
        if tried is None or ops or len(tried) == 2:
            evaluations, two = comparable_columns(
                scores, names(ops) if ops else None, scoring=protocol, progress=progress
            )
            sought = 1.0 if difference is None else difference
            report = operators_table(
                evaluations, two, metric=metric or "dsc", sought=sought, tried=tried, progress=progress
            )
            print_report(report, form, progress.told)
    progress.check(strict=strict)
