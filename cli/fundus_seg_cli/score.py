"""`fundus-seg score`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.table import METRICS_HELP, Format, print_table

Predictions = typer.Option(
    help="Folder of predicted masks, or a pattern as 'out/{name}/seg.nii.gz'; twice for binary masks: disc, then cup."
)
Truths = typer.Option(help="The same of the true masks, which cases are matched with by name.")
PredictionCoding = typer.Option(
    help="labels (0, 1 rim, 2 cup), dofe (255, 128 rim, 0 cup) or '{cup: 2, rim: 1, background: 0}' "
    "(default: recognised)."
)
TruthCoding = typer.Option(help="The same of the true masks (default: recognised).")


class Missing(StrEnum):
    """What becomes of the cases without a prediction."""

    leave_out = "leave-out"
    empty = "empty"


def score(
    pred: Annotated[list[str], Predictions],
    truth: Annotated[list[str], Truths],
    pred_coding: Annotated[str | None, PredictionCoding] = None,
    truth_coding: Annotated[str | None, TruthCoding] = None,
    name: Annotated[str, typer.Option(help="The tool: the table's column.")] = "external",
    holdout: Annotated[str, typer.Option(help="The domain that the cases are of.")] = "unknown",
    seed: Annotated[int, typer.Option(min=0, help="Which of the tool's runs.")] = 0,
    scoring: Annotated[str, typer.Option(help="Protocol of this preset or YAML file.")] = "paper",
    raw: Annotated[
        bool, typer.Option("--raw", help="Masks as they are: no largest component, holes not filled; its own protocol.")
    ] = False,
    missing: Annotated[
        Missing, typer.Option(help="Cases without a prediction: in no mean, or each an empty prediction.")
    ] = Missing.leave_out,
    out: Annotated[
        Path | None, typer.Option(help="Keep the case records here, for `fundus-seg evaluate` to show beside runs.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How the table is written.")] = Format.rich,
    metrics: Annotated[str, typer.Option(help=METRICS_HELP)] = "dsc,hd,hd95",
) -> None:
    """Score any tool's masks (PNG, BMP, TIFF, NIfTI) as runs are scored, and print the table.

    The first axis of a NIfTI is the image's columns, as nibabel and ITK have it and `fundus-seg predict` writes it: one
    saved of an array (height, width) reads transposed.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.data.domain_file import read_coding
    from fundus_seg.data.mask_files import pair_masks
    from fundus_seg.evaluation.external import score_masks
    from fundus_seg.evaluation.metric_table import check_metrics
    from fundus_seg.reporting.tables import build_table, build_tidy_table, tables
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    names = [metric.strip() for metric in metrics.split(",")]
    check_metrics(names)
    protocol = load_scoring(scoring)
    if raw:
        protocol = protocol.model_copy(update={"largest_component": False, "fill_holes": False})
    codings = {
        "prediction_coding": read_coding(pred_coding) if pred_coding else None,
        "truth_coding": read_coding(truth_coding) if truth_coding else None,
    }
    pairs = pair_masks(pred, truth, progress=progress, **codings)
    evaluation = score_masks(
        pairs,
        name=name,
        holdout=holdout,
        seed=seed,
        scoring=protocol,
        missing=missing.value,
        out=out,
        progress=progress,
    )
    if out:
        progress.line(f"case records: {evaluation.path}")
    for table in tables([evaluation], names, build_tidy_table if form is Format.csv else build_table):
        print_table(table, form)
