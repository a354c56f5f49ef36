"""`fundus-seg audit`."""

from __future__ import annotations

import typer

from fundus_seg_cli.options import Format, PredictionCoding, PredictionsIfAny, TruthCoding, TruthsIfAny, mask_pairs
from fundus_seg_cli.table import print_report


def audit(
    pred: PredictionsIfAny = None,
    truth: TruthsIfAny = None,
    pred_coding: PredictionCoding = None,
    truth_coding: TruthCoding = None,
    form: Format = "rich",
) -> None:
    """Compare our metrics with MedPy's, and MONAI's where installed: on known shapes, or on masks; exit 1 if wrong."""
    from fundus_seg.errors import UsageError
    from fundus_seg.reporting.audit import cases_table, compare, shapes_table
    from fundus_seg.reporting.audit_pairs import audit_pairs, shapes

    if bool(pred) != bool(truth):
        raise UsageError("--pred and --truth belong together; without both, the audit is on known shapes")
    if pred and truth:
        from fundus_seg_cli.progress import Terminal

        progress = Terminal()
        pairs = mask_pairs(pred, truth, pred_coding, truth_coding, progress)
        compared = compare(audit_pairs(pairs, progress=progress))
        table = cases_table(compared)
    else:
        compared = compare(shapes())
        table = shapes_table(compared)
    print_report(table, form)
    if any(each.wrong for each in compared):
        raise typer.Exit(1)
