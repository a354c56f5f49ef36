"""The table that sets ours beside published numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.reporting.deviations import deviations
from fundus_seg.reporting.notes import counts_and_protocol, table_title
from fundus_seg.reporting.numbers import data_text, difference_text, mean_sd_text, p_text
from fundus_seg.reporting.published import PublishedCell, PublishedTable
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.reporting.table import Table
from fundus_seg.reporting.tables import case_values, cell_values, in_order, summarise
from fundus_seg.statistics.equivalence import Equivalence, Summary, Verdict, equivalence
from fundus_seg.statistics.intervals import MINIMAL_RUNS, mean_sd

MARGINS = {"%": 1.0, "px of 800": 2.0}
"""The largest difference that counts as none: 1 point of an overlap, 2 pixels of a distance."""

_LABELS = ("metric", "structure", "unseen", "operator")
_COLUMNS = ("runs", "ours", "published", "our HD", "difference [95 %]", "TOST p", "verdict")
_MEAN = "mean"
_TIDY_LABELS = ("metric", "unit", "structure", "holdout", "operator")
_TIDY_NUMBERS = (
    *("mean", "sd", "runs", "published_mean", "published_sd", "published_runs", "hd_mean", "hd_sd"),
    *("difference", "low", "high", "p"),
)


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

    @property
    def untested(self) -> bool:
        """Whether ours is there, but no test was possible."""
        return bool(self.ours.runs) and not self.found.tested


def published_table(runs: Sequence[ScoredRun], published: PublishedTable, *, tidy: bool = False) -> Table:
    """Ours beside published numbers: difference with its interval, equivalence test, verdict, every deviation below.

    A column of ours stands beside the published operator of its name, whatever else its recipe changes. Verdicts are
    those of `equivalence` with MARGINS. Beside a published HD95, our HD stands in a column of its own. Means over
    cells, given where none is missing, have no test: what disc and cup of one network have in common is not published.
    The title says how checkpoints were chosen; counts and protocol stand below.

    Args:
        runs: of real photographs.
        published: the table of other people.
        tidy: for a program to read: every number in a column of its own, NA where there is none, no means over cells.

    Raises:
        ProtocolError: the phantom among the runs, runs that must not stand in one table, or none of a published cell.
    """
    for run in runs:
        if run.evaluation.meta.phantom:
            raise ProtocolError(
                f"{run.evaluation.path}: synthetic photographs, on which nothing was published; name runs on real ones"
            )
    cases = case_values([run.evaluation for run in runs])
    columns, others = _columns(runs, published)
    means = summarise(cases)
    compared = [
        _beside(means, column, cell)
        for cell in published.cells
        for column, own in columns.items()
        if own[0].config.model.op == cell.operator
    ]
    beside = [run.evaluation for own in columns.values() for run in own]
    where = {(column, run.config.holdout) for column, own in columns.items() for run in own}
    counted = cases[pd.MultiIndex.from_frame(cases[["column", "holdout"]]).isin(where)]
    metrics = [*dict.fromkeys(each.cell.metric for each in compared)]
    notes = (
        *_notes(compared),
        *(f"published: {note}" for note in published.notes),
        *deviations(columns, published),
        *(f"not published: {other}" for other in others),
        *counts_and_protocol(beside, counted, metrics),
    )
    title = table_title(f"Measured beside {published.name}, mean ± SD over runs", beside)
    if tidy:
        body = tuple(map(_tidy_row, compared))
        return Table(title, _TIDY_LABELS, ("published_metric", *_TIDY_NUMBERS, "verdict"), body, notes)
    return Table(title, _LABELS, _COLUMNS, tuple(_rows(compared)), notes)


def _rows(compared: Sequence[_Beside]) -> list[tuple[str, ...]]:
    """For each published metric its cells, then a mean over them for each column."""
    rows = []
    for name in dict.fromkeys(each.cell.name for each in compared):
        group = [each for each in compared if each.cell.name == name]
        rows += [_row(each) for each in group]
        for column in dict.fromkeys(each.column for each in group):
            rows.append(_mean_row([each for each in group if each.column == column]))
    return rows


def _notes(compared: Sequence[_Beside]) -> list[str]:
    verdicts = [each.verdict for each in compared]
    notes = [
        f"{len(compared)} cells: {', '.join(f'{verdicts.count(one)} {one}' for one in dict.fromkeys(verdicts))}",
        "reproduced: TOST p < 0.05 of a difference within 1 point or 2 pixels, for which the 90 % interval lies within "
        "them; not reproduced: the whole 95 % interval (Welch) lies beyond them; undecided: neither; not adjusted for "
        "the number of cells",
    ]
    if any(each.untested for each in compared):
        notes.append(
            f"no test: fewer than {MINIMAL_RUNS} runs of ours or 2 of theirs, or no spread over runs, on either side"
        )
    return notes


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


def _beside(means: pd.DataFrame, column: str, cell: PublishedCell) -> _Beside:
    where = {"column": column, "structure": cell.structure, "holdout": cell.holdout}
    ours, hausdorff = (
        Summary(*mean_sd(values), len(values))
        for values in (cell_values(means, metric, **where) for metric in (cell.metric, "hd"))
    )
    return _Beside(column, cell, ours, hausdorff)


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
        f"{beside.verdict}{', no test' * beside.untested}",
    )


def _tidy_row(beside: _Beside) -> tuple[str, ...]:
    """Labels, the metric as published, _TIDY_NUMBERS, verdict."""
    cell, ours, theirs, found = beside.cell, beside.ours, beside.cell.summary, beside.found
    metric = METRICS[cell.metric]
    numbers = (
        *(ours.mean, ours.sd, ours.runs, theirs.mean, theirs.sd, theirs.runs),
        *(beside.hausdorff.mean, beside.hausdorff.sd),
        *(found.difference, found.low, found.high, found.p),
    )
    labels = (metric.label, metric.unit, cell.structure, cell.holdout, beside.column)
    return (*labels, cell.name, *map(data_text, numbers), beside.verdict)


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
