"""The table of our numbers beside published ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd

from fundus_seg.errors import ProtocolError, counted
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.reporting.deviations import deviations
from fundus_seg.reporting.floors import floor_means, floors_of
from fundus_seg.reporting.frames import captions_of, case_values, labelled, summarise
from fundus_seg.reporting.notes import counts_and_protocol, table_title
from fundus_seg.reporting.published import PublishedCell, PublishedTable
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.reporting.table import Report, Table, difference_text, mean_sd_text, p_text
from fundus_seg.runs.identity import MEAN_MASK, Column
from fundus_seg.statistics.equivalence import Equivalence, Summary, Verdict, equivalence
from fundus_seg.statistics.intervals import MINIMAL_RUNS, mean_sd

MARGINS = {"%": 1.0, "px of 800": 2.0}
"""The largest difference that counts as none: 1 point of an overlap, 2 pixels of a distance."""


@dataclass(frozen=True)
class _Pair:
    """One cell of a column of our table beside a published one.

    Attributes:
        column: our column.
        caption: its caption.
        cell: the published cell.
        ours: our scores, by the metric that the published cell is compared with.
        hausdorff: our HD.
        floor: that metric of our floor, NaN where it is not known.
    """

    column: Column
    caption: str
    cell: PublishedCell
    ours: Summary
    hausdorff: Summary
    floor: float

    @property
    def found(self) -> Equivalence:
        return equivalence(self.ours, self.cell.summary, margin=MARGINS[METRICS[self.cell.metric].unit])

    @property
    def verdict(self) -> Verdict | Literal["missing"]:
        return self.found.verdict if self.ours.runs else "missing"

    @property
    def untested(self) -> bool:
        """Whether we have scores, but no test was possible."""
        return bool(self.ours.runs) and not self.found.tested


def published_table(runs: Sequence[ScoredRun], published: PublishedTable) -> Report:
    """Ours beside published numbers: difference with its interval, equivalence test, verdict, every deviation below.

    A column of ours stands beside the published operator of its name, whatever else its recipe changes. Verdicts are
    those of `equivalence` with MARGINS. Our floor stands in a column of its own, and so does our HD beside a published
    HD95. Means over cells, given where none is missing, have no test: what disc and cup of one network have in common
    is not published. The title says how checkpoints were chosen; counts and protocol stand below.

    The frame has a row for each published cell and each of our columns beside it, and no means over cells.

    Args:
        runs: runs on real photographs.
        published: the table of other people.

    Raises:
        ProtocolError: the phantom among the runs, runs that must not stand in one table, or none of a published cell.
    """
    for run in runs:
        if run.evaluation.meta.phantom:
            raise ProtocolError(
                f"{run.evaluation.path}: synthetic photographs, on which nothing was published; name runs on real ones"
            )
    names = captions_of([run.evaluation for run in runs])
    cases = labelled(case_values([run.evaluation for run in runs]), names)
    columns, others = _columns(runs, published, names)
    compared = _pairs(cases, columns, names, published)
    beside = [run.evaluation for own in columns.values() for run in own]
    places = {(names[run.evaluation.meta.column], run.config.holdout) for own in columns.values() for run in own}
    shown = cases[pd.MultiIndex.from_frame(cases[["column", "holdout"]]).isin(places)]
    metrics = [*dict.fromkeys(each.cell.metric for each in compared)]
    notes = (
        *_notes(compared),
        *(f"published: {note}" for note in published.notes),
        *deviations({names[column]: own for column, own in columns.items()}, published),
        *(f"not published: {other}" for other in others),
        *floors_of(beside).notes,
        *counts_and_protocol(beside, shown, metrics),
    )
    title = table_title(f"Measured beside {published.name}, mean ± SD over runs", beside)
    return Report(pd.DataFrame([_data(pair) for pair in compared]), _layout(compared, title, notes))


def _columns(
    runs: Sequence[ScoredRun], published: PublishedTable, names: Mapping[Column, str]
) -> tuple[dict[Column, list[ScoredRun]], list[str]]:
    """The runs of each of our columns that have a published counterpart, and what the others are called."""
    counterparts = {(cell.operator, cell.holdout) for cell in published.cells}
    columns: dict[Column, list[ScoredRun]] = {}
    others: dict[str, None] = {}
    for run in sorted(runs, key=lambda run: run.evaluation.meta.column):
        column = run.evaluation.meta.column
        if (run.config.model.op, run.config.holdout) in counterparts:
            columns.setdefault(column, []).append(run)
        else:
            others[f"{names[column]} on {run.config.holdout}"] = None
    if not columns:
        there = sorted({f"{operator} on {holdout}" for operator, holdout in counterparts})
        raise ProtocolError(
            f"{published.name} has {', '.join(there)}; of these there is no run, but {', '.join(others)}"
        )
    return columns, list(others)


def _pairs(
    cases: pd.DataFrame,
    columns: Mapping[Column, Sequence[ScoredRun]],
    names: Mapping[Column, str],
    published: PublishedTable,
) -> list[_Pair]:
    """Each published cell beside each of our columns of its operator."""
    means = labelled(summarise(cases), names)
    runs = {where: cell for where, cell in means.groupby(["column", "structure", "holdout"])}
    floors = {
        (column, metric): floor_means(floors_of([run.evaluation for run in own]), metric)
        for column, own in columns.items()
        for metric in {cell.metric for cell in published.cells}
    }
    pairs = []
    for cell in published.cells:
        for column, own_runs in columns.items():
            if own_runs[0].config.model.op == cell.operator:
                own = runs.get((names[column], cell.structure, cell.holdout), means[:0])
                ours, hausdorff = _summary(own[cell.metric]), _summary(own["hd"])
                floor = floors[column, cell.metric].get((cell.structure, cell.holdout), math.nan)
                pairs.append(_Pair(column, names[column], cell, ours, hausdorff, floor))
    return pairs


def _summary(run_means: pd.Series) -> Summary:
    values = run_means.dropna()
    mean, sd = mean_sd(values)
    return Summary(mean, sd, len(values))


def _data(pair: _Pair) -> dict[str, object]:
    """The row of the frame."""
    cell, ours, theirs, found = pair.cell, pair.ours, pair.cell.summary, pair.found
    return {
        "metric": cell.metric,
        "unit": METRICS[cell.metric].unit,
        "structure": cell.structure,
        "holdout": cell.holdout,
        **asdict(pair.column),
        "published_metric": cell.name,
        "mean": ours.mean,
        "sd": ours.sd,
        "runs": ours.runs,
        "published_mean": theirs.mean,
        "published_sd": theirs.sd,
        "published_runs": theirs.runs,
        "hd_mean": pair.hausdorff.mean,
        "hd_sd": pair.hausdorff.sd,
        "floor": pair.floor,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "verdict": pair.verdict,
    }


def _layout(compared: Sequence[_Pair], title: str, notes: tuple[str, ...]) -> Table:
    """For each published metric its cells, then a mean over them for each column."""
    rows = []
    for name in dict.fromkeys(pair.cell.name for pair in compared):
        group = [pair for pair in compared if pair.cell.name == name]
        rows += [_row(pair) for pair in group]
        for caption in dict.fromkeys(pair.caption for pair in group):
            rows.append(_mean_row([pair for pair in group if pair.caption == caption]))
    labels = ("metric", "structure", "unseen", "operator")
    body = tuple(tuple(row.values()) for row in rows)
    return Table(title, labels, tuple(rows[0])[len(labels) :], body, notes)


def _row(pair: _Pair) -> dict[str, str]:
    """The texts of one row, by the heading of their column."""
    cell, ours, found = pair.cell, pair.ours, pair.found
    return {
        "metric": _name(cell),
        "structure": cell.structure,
        "unseen": cell.holdout,
        "operator": pair.caption,
        "runs": str(ours.runs),
        "ours": mean_sd_text(ours.mean, ours.sd),
        "published": mean_sd_text(cell.summary.mean, cell.summary.sd),
        "our HD": _hausdorff(cell, pair.hausdorff.mean, pair.hausdorff.sd),
        MEAN_MASK: mean_sd_text(pair.floor),
        "difference [95 %]": difference_text(found.difference, found.low, found.high),
        "TOST p": p_text(found.p),
        "verdict": f"{pair.verdict}, no test" if pair.untested else pair.verdict,
    }


def _mean_row(group: Sequence[_Pair]) -> dict[str, str]:
    """The texts of the means over the cells of one metric and one column."""
    cell = group[0].cell
    ours = float(np.mean([pair.ours.mean for pair in group]))
    theirs = float(np.mean([pair.cell.summary.mean for pair in group]))
    hausdorff = float(np.mean([pair.hausdorff.mean for pair in group]))
    return {
        "metric": _name(cell),
        "structure": "mean",
        "unseen": ", ".join(sorted({pair.cell.holdout for pair in group})),
        "operator": group[0].caption,
        "runs": "-",
        "ours": mean_sd_text(ours),
        "published": mean_sd_text(theirs),
        "our HD": _hausdorff(cell, hausdorff),
        MEAN_MASK: mean_sd_text(float(np.mean([pair.floor for pair in group]))),
        "difference [95 %]": difference_text(ours - theirs),
        "TOST p": "-",
        "verdict": "-",
    }


def _name(cell: PublishedCell) -> str:
    """Our metric, with the name that the published table gives it where that differs."""
    metric = METRICS[cell.metric]
    same = cell.name.upper() == metric.label.upper()
    return metric.heading if same else f"{metric.label} (there {cell.name.removesuffix('_as_printed')})"


def _hausdorff(cell: PublishedCell, mean: float, sd: float = math.nan) -> str:
    return "-" if cell.metric != "hd95" or math.isnan(mean) else mean_sd_text(mean, sd)


def _notes(compared: Sequence[_Pair]) -> list[str]:
    verdicts = Counter(pair.verdict for pair in compared)
    notes = [
        f"{counted(len(compared), 'cell')}: {', '.join(f'{count} {verdict}' for verdict, count in verdicts.items())}",
        "reproduced: TOST p < 0.05 of a difference within 1 point or 2 pixels, for which the 90 % interval lies within "
        "them; not reproduced: the whole 95 % interval (Welch) lies beyond them; undecided: neither; not adjusted for "
        "the number of cells",
    ]
    if any(pair.untested for pair in compared):
        notes.append(
            f"no test: fewer than {MINIMAL_RUNS} runs of ours or 2 of theirs, or no spread over runs, on either side"
        )
    return notes
