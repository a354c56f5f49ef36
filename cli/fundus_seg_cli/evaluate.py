"""`fundus-seg evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from fundus_seg.builtins import CheckpointName, Inference, Perturbation
from fundus_seg_cli.options import (
    METRICS_SHOWN,
    TRUST_MEASURED,
    Ensemble,
    Format,
    Labels,
    Metrics,
    NetworkViews,
    OverlayFormat,
    Perturbed,
    Plots,
    RunData,
    Runs,
    Scoring,
    Strengths,
    Strict,
    TrustMeasured,
    labels,
    names,
    numbers,
)
from fundus_seg_cli.table import print_report


def evaluate(
    runs: Runs = None,
    data: RunData = None,
    checkpoint: Annotated[
        CheckpointName | None,
        typer.Option(
            help="Checkpoint to score (default: best). average needs the setting train.average, oracle needs "
            "`fundus-seg train --probe-holdout`."
        ),
    ] = None,
    all_selections: Annotated[
        bool,
        typer.Option(
            "--all-selections",
            help="Score last, best, average and oracle of every run side by side, where it has them, and show what "
            "choosing on the scored cases themselves would seem to gain.",
        ),
    ] = False,
    in_domain: Annotated[
        bool,
        typer.Option(
            "--in-domain",
            help="Also score the source domains, on test cases that chose no checkpoint, and print a table of them.",
        ),
    ] = False,
    readers: Annotated[
        bool,
        typer.Option(
            "--readers",
            help="Also score against each reader of the unseen domain, where a YAML file names its annotators, and "
            "print a table with the readers' own agreement beside it.",
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
    views: NetworkViews = None,
    ensemble: Ensemble = False,
    adapt_batch_norms: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Let batch norms adapt to all photographs of a domain before it is scored, which is transductive. The "
            "number says how many photographs the source's statistics count as beside them, 0 for none (default: what "
            "the protocol says; norms do not adapt by that of a preset).",
        ),
    ] = None,
    anatomical: Annotated[
        bool,
        typer.Option(
            "--anatomical",
            help="Also score masks that are made anatomical (cup in disc, each in one piece, without holes, smoothly "
            "outlined), and print the scores without and with it side by side.",
        ),
    ] = False,
    perturb: Perturbed = None,
    strengths: Strengths = None,
    form: Format = "rich",
    metrics: Metrics = METRICS_SHOWN,
    clinical: Annotated[
        bool, typer.Option("--clinical", help="Also print a table of cup-to-disc ratios and impossible anatomy.")
    ] = False,
    overlays: Annotated[
        int, typer.Option(min=0, help="Number of contours to draw per run, from the worst case to the best.")
    ] = 0,
    overlay_format: OverlayFormat = "jpeg",
    plots: Plots = None,
    label: Labels = None,
    trust: TrustMeasured = None,
    strict: Strict = False,
) -> None:
    """Score runs on their unseen domain, write the case records, print the table.

    Runs without an unseen domain (--holdout none) have a table of their own, of test cases of their training domains
    that chose no checkpoint.

    What `fundus-seg score --out` wrote into the same folders stands beside them.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.errors import UsageError, counted
    from fundus_seg.evaluation.metric_table import check_metrics
    from fundus_seg.plugins import load
    from fundus_seg.runs.folder import RunFolder, check_folders
    from fundus_seg_cli.progress import Terminal

    if all_selections and checkpoint:
        raise UsageError("--checkpoint with --all-selections, which scores every one: leave one of the two out")
    maps: list[Perturbation] = [each for each in get_args(Perturbation) if each in (perturb or ())]
    if strengths is not None and len(maps) != 1:
        raise UsageError("--strengths are those of one map: give one --perturb with them")
    by = None if strengths is None else numbers(strengths, "--strengths")
    shown, progress = names(metrics), Terminal()
    check_metrics(shown)
    protocol = load_scoring(scoring) if scoring else None
    renamed = labels(label or [])
    trusted = trust or []
    for name in trusted:
        if name != TRUST_MEASURED:
            load(name)
    folders = runs or [Path("runs")]
    check_folders(folders)
    if maps:
        from fundus_seg.evaluation.perturbation import strengths_of

        strengths_of(maps[0], by)  # refused before anything is scored

    from fundus_seg.evaluation import evaluate_runs  # pandas, only once the arguments are right
    from fundus_seg.reporting import evaluation_reports, with_labels, write_card

    found = evaluate_runs(
        folders,
        data,
        checkpoints="all" if all_selections else checkpoint or "best",
        in_domain=in_domain,
        scoring=protocol,
        inference=inference,
        views=views,
        ensemble=ensemble,
        adapt_batch_norms=adapt_batch_norms,
        against_readers=readers,
        with_anatomical=anatomical,
        overlays=overlays,
        overlay_format=overlay_format,
        progress=progress,
    )
    named = {
        each.path: each
        for each in with_labels(
            [
                *found.evaluations,
                *(inside for _, inside in found.pairs),
                *found.seen,
                *found.by_reader,
                *(each for pair in found.anatomical for each in pair),
            ],
            renamed,
        )
    }
    reports = evaluation_reports(
        evaluations := [named[each.path] for each in found.evaluations],
        shown,
        pairs=[(named[out.path], named[inside.path]) for out, inside in found.pairs],
        seen=[named[each.path] for each in found.seen],
        against=[named[each.path] for each in found.by_reader],
        anatomical=[(named[plain.path], named[made.path]) for plain, made in found.anatomical],
        clinical=clinical,
        leak=all_selections,
    )
    for report in reports:
        print_report(report, form, progress.told)
    if TRUST_MEASURED in trusted:
        from fundus_seg.evaluation.trust import measure_trust_of_runs
        from fundus_seg.reporting.trust import trust_reports

        for report in trust_reports(measure_trust_of_runs(folders, data, ensemble=ensemble, progress=progress)):
            print_report(report, form, progress.told)
    for kind in maps:
        from fundus_seg.evaluation.perturbed import perturb_runs
        from fundus_seg.reporting.perturbed import perturbed_reports, write_perturbed_plots

        moved = perturb_runs(evaluations, folders, kind, by, data, ensemble=ensemble, progress=progress)
        for report in perturbed_reports(moved, shown):
            print_report(report, form, progress.told)
        if plots:
            drawn = write_perturbed_plots(moved, plots, shown)
            progress.line(f"{counted(len(drawn), 'file')} of plots of {kind} in {plots}")
    for folder in dict.fromkeys(each.path.parents[1] for each in found.seen if not each.meta.members):
        if card := write_card(RunFolder(folder)):
            progress.line(f"card of the network: {card}")
    if plots:
        from fundus_seg.reporting import write_plots

        progress.line(f"{counted(len(write_plots(evaluations, plots, shown)), 'file')} of plots in {plots}")
    progress.check(strict=strict)
