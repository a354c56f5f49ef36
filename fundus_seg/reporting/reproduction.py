"""The table that sets ours beside published numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.equivalence import Equivalence, Summary, Verdict, equivalence
from fundus_seg.evaluation.metric import METRICS
from fundus_seg.evaluation.statistics import mean_sd
from fundus_seg.evaluation.tables import case_values, in_order
from fundus_seg.reporting.deviations import deviations
from fundus_seg.reporting.numbers import difference_text, mean_sd_text, p_text
from fundus_seg.reporting.published import PublishedCell, PublishedTable
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.table import Table

MARGINS = {"%": 1.0, "px of 800": 2.0}
"""The largest difference that counts as none: 1 point of an overlap, 2 pixels of a distance."""

_LABELS = ("metric", "structure", "unseen", "operator")
_COLUMNS = ("runs", "ours", "published", "our HD", "difference [95 %]", "TOST p", "verdict")
_MEAN = "mean"
_MISSING = Summary(math.nan, math.nan, 0)


@dataclass(frozen=True)
class _Beside:
    """One cell of ours, of a column of our table, beside a published one."""

    column: str
    cell: PublishedCell
    ours: Summary
    hausdorff: Summary

    @property
    def found(self) -> Equivalence:
        return equivalence(self.ours, self.cell.summary, margin=MARGINS[METRICS[self.cell.metric].unit])

    @property
    def verdict(self) -> Verdict | Literal["missing"]:
        return self.found.verdict if self.ours.runs else "missing"


def published_table(runs: Sequence[ScoredRun], published: PublishedTable) -> Table:
    """Ours beside published numbers: difference with its interval, equivalence test, verdict, every deviation below.

    A column of ours stands beside the published operator of its name, whatever else its recipe changes. Verdicts are
    those of `equivalence` with MARGINS. Beside a published HD95, our HD stands in a column of its own. Means over
    cells, given where none is missing, have no test: what disc and cup of one network have in common is not published.

    Raises:
        ProtocolError: the phantom among the runs, runs that must not stand in one table, or none of a published cell.
    """
    for run in runs:
        if run.evaluation.meta.phantom:
            raise ProtocolError(
                f"{run.evaluation.path}: synthetic photographs, on which nothing was published; name runs on real ones"
            )
    columns, others = _columns(runs, published)
    means = _run_means(runs)
    compared = [
        _beside(means, column, cell)
        for cell in published.cells
        for column, own in columns.items()
        if own[0].config.model.op == cell.operator
    ]
    rows = []
    for name in dict.fromkeys(each.cell.name for each in compared):
        group = [each for each in compared if each.cell.name == name]
        rows += [_row(each) for each in group]
        for column in dict.fromkeys(each.column for each in group):
            rows.append(_mean_row([each for each in group if each.column == column]))
    verdicts = [each.verdict for each in compared]
    notes = (
        f"{len(compared)} cells: {', '.join(f'{verdicts.count(one)} {one}' for one in dict.fromkeys(verdicts))}",
        "reproduced: TOST p < 0.05 of a difference within 1 point or 2 pixels; not reproduced: it is not, and the 95 % "
        "interval (Welch) excludes 0; undecided: neither, or fewer than 2 runs; not adjusted for the number of cells",
        *(f"published: {note}" for note in published.notes),
        *deviations(columns, published),
        *(f"not published: {other}" for other in others),
    )
    return Table(f"Measured beside {published.name}, mean ± SD over runs", _LABELS, _COLUMNS, tuple(rows), notes)


def _columns(runs: Sequence[ScoredRun], published: PublishedTable) -> tuple[dict[str, list[ScoredRun]], list[str]]:
    """The runs of each of our columns that have a published counterpart, and the names of the others."""
    by_path = {run.evaluation.path: run for run in runs}
    counterparts = {(cell.operator, cell.holdout) for cell in published.cells}
    columns: dict[str, list[ScoredRun]] = {}
    others: dict[str, None] = {}
    for name, evaluation in in_order([run.evaluation for run in runs]):
        run = by_path[evaluation.path]
        if (run.config.model.op, run.config.holdout) in counterparts:
            columns.setdefault(name, []).append(run)
        else:
            others[f"{name} on {run.config.holdout}"] = None
    if not columns:
        there = sorted({f"{operator} on {holdout}" for operator, holdout in counterparts})
        raise ProtocolError(
            f"{published.name} has {', '.join(there)}; of these there is no run, but {', '.join(others)}"
        )
    return columns, list(others)


def _run_means(runs: Sequence[ScoredRun]) -> pd.DataFrame:
    """A row for each column, structure, holdout and seed: the metrics' means over cases."""
    values = case_values([run.evaluation for run in runs])
    return values.groupby(["column", "structure", "holdout", "seed"])[list(METRICS)].mean().reset_index()


def _beside(means: pd.DataFrame, column: str, cell: PublishedCell) -> _Beside:
    here = (means["column"] == column) & (means["structure"] == cell.structure) & (means["holdout"] == cell.holdout)
    return _Beside(column, cell, *(_summary(means.loc[here, metric]) for metric in (cell.metric, "hd")))


def _summary(values: pd.Series) -> Summary:
    defined = values.dropna()
    return Summary(*mean_sd(defined), len(defined)) if len(defined) else _MISSING


def _row(beside: _Beside) -> tuple[str, ...]:
    cell, ours, found = beside.cell, beside.ours, beside.found
    return (
        *(_name(cell), cell.structure, cell.holdout, beside.column),
        str(ours.runs),
        mean_sd_text(ours.mean, ours.sd),
        mean_sd_text(cell.summary.mean, cell.summary.sd),
        _hausdorff(cell, beside.hausdorff.mean, beside.hausdorff.sd),
        difference_text(found.difference, found.low, found.high),
        p_text(found.p),
        beside.verdict,
    )


def _mean_row(group: Sequence[_Beside]) -> tuple[str, ...]:
    """Over the cells of one metric and one column."""
    cell = group[0].cell
    ours, theirs, hausdorff = (
        float(np.mean(means))
        for means in zip(
            *((each.ours.mean, each.cell.summary.mean, each.hausdorff.mean) for each in group), strict=True
        )
    )
    holdouts = ", ".join(sorted({each.cell.holdout for each in group}))
    return (
        *(_name(cell), _MEAN, holdouts, group[0].column),
        "-",
        mean_sd_text(ours),
        mean_sd_text(theirs),
        _hausdorff(cell, hausdorff),
        difference_text(ours - theirs),
        "-",
        "-",
    )


def _name(cell: PublishedCell) -> str:
    """Our metric, with the name that the published table gives it where that differs."""
    metric = METRICS[cell.metric]
    same = cell.name.upper() == metric.label.upper()
    return metric.heading if same else f"{metric.label} (there {cell.name.removesuffix('_as_printed')})"


def _hausdorff(cell: PublishedCell, mean: float, sd: float = math.nan) -> str:
    return "-" if cell.metric != "hd95" or math.isnan(mean) else mean_sd_text(mean, sd)
