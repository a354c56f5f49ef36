"""`fundus-seg score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg.builtins import Missing, Unannotated
from fundus_seg_cli.options import (
    METRICS_SHOWN,
    Format,
    Metrics,
    PredictionCoding,
    Predictions,
    Strict,
    TruthCoding,
    Truths,
    mask_pairs,
    names,
)
from fundus_seg_cli.table import print_report


def score(
    pred: Predictions,
    truth: Truths,
    pred_coding: PredictionCoding = None,
    truth_coding: TruthCoding = None,
    name: Annotated[str, typer.Option(help="Name of the tool, which heads its column of the table.")] = "external",
    holdout: Annotated[str, typer.Option(help="Domain that the cases come from.")] = "unknown",
    seed: Annotated[int, typer.Option(min=0, help="Number of the run, if the tool was run several times.")] = 0,
    scoring: Annotated[str, typer.Option(help="Preset or YAML file whose scoring protocol is used.")] = "paper",
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Score the masks as they are, without largest component and filled holes: another protocol."
        ),
    ] = False,
    missing: Annotated[
        Missing,
        typer.Option(help="Leave cases without a prediction out of every mean, or count each as an empty prediction."),
    ] = "leave-out",
    unannotated_cup: Annotated[
        Unannotated,
        typer.Option(
            help="Which true cups nobody has annotated, so that their cases are scored on the disc alone: those "
            "without a file, or those without a pixel."
        ),
    ] = "never",
    out: Annotated[
        Path | None, typer.Option(help="Folder to keep the case records in; `fundus-seg evaluate` shows them there.")
    ] = None,
    form: Format = "rich",
    metrics: Metrics = METRICS_SHOWN,
    strict: Strict = False,
) -> None:
    """Score any tool's masks (PNG, BMP, TIFF, NIfTI) as runs are scored, and print the table.

    The first axis of a NIfTI must be the image's columns, as nibabel, ITK and `fundus-seg predict` write it. One that
    lies turned or mirrored is refused where the pictures that it is compared with show it.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.evaluation.metric_table import check_metrics
    from fundus_seg_cli.progress import Terminal

    progress, shown = Terminal(), names(metrics)
    check_metrics(shown)
    protocol = load_scoring(scoring)
    if raw:
        protocol = protocol.model_copy(update={"largest_component": False, "fill_holes": False})
    pairs = mask_pairs(pred, truth, pred_coding, truth_coding, progress, unannotated_cup)

    from fundus_seg.evaluation import score_masks
    from fundus_seg.reporting import score_table

    evaluation = score_masks(
        pairs,
        name=name,
        holdout=holdout,
        seed=seed,
        scoring=protocol,
        missing=missing,
        out=out,
        progress=progress,
    )
    if out:
        progress.line(f"case records: {evaluation.path}")
    print_report(score_table([evaluation], shown), form, progress.told)
    progress.check(strict=strict)
