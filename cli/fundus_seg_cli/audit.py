"""`fundus-seg audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from fundus_seg_cli.score import PredictionCoding, Predictions, TruthCoding, Truths
from fundus_seg_cli.table import Format, print_table


def audit(
    pred: Annotated[list[str] | None, Predictions] = None,
    truth: Annotated[list[str] | None, Truths] = None,
    pred_coding: Annotated[str | None, PredictionCoding] = None,
    truth_coding: Annotated[str | None, TruthCoding] = None,
    form: Annotated[Format, typer.Option("--format", help="How the table is written.")] = Format.rich,
) -> None:
    """Compare our metrics with MedPy's, and MONAI's where installed: on known shapes, or on masks; exit 1 if wrong."""
    from fundus_seg.errors import UsageError
    from fundus_seg.reporting.audit import audit_pairs, cases_table, compare, shapes, shapes_table

    if bool(pred) != bool(truth):
        raise UsageError("--pred and --truth belong together; without both, the audit is on known shapes")
    if pred and truth:
        from fundus_seg.data.domain_file import read_coding
        from fundus_seg.data.mask_files import pair_masks
        from fundus_seg_cli.progress import Terminal

        progress = Terminal()
        pairs = pair_masks(
            pred,
            truth,
            prediction_coding=read_coding(pred_coding) if pred_coding else None,
            truth_coding=read_coding(truth_coding) if truth_coding else None,
            progress=progress,
        )
        compared = compare(audit_pairs(pairs, progress=progress))
        table = cases_table(compared)
    else:
        compared = compare(shapes())
        table = shapes_table(compared)
    print_table(table, form)
    if any(each.wrong for each in compared):
        raise typer.Exit(1)
