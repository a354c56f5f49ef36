"""The table in the paper's form, always rebuilt from case records: structure x unseen domain, a column per operator.

A cell is the mean over runs of each run's mean over cases, with the standard deviation (n - 1) over runs. Every run
counts once, every case counts once within its run, and nothing is averaged twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product

import numpy as np
import pandas as pd

from fundus_seg.errors import counted
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.frames import captions_of, case_values, labelled, summarise
from fundus_seg.reporting.notes import counts_and_protocol, table_title
from fundus_seg.reporting.table import Report, Table, mean_interval_text, mean_sd_text
from fundus_seg.runs.identity import COLUMN_FIELDS, Column
from fundus_seg.statistics.intervals import MINIMAL_RUNS, bootstrap_interval, mean_sd
from fundus_seg.statistics.ties import BOLD, Best, best_columns

_NAMES = {"disc": "disc (OD)", "cup": "cup (OC)"}
_BRACKETS = (
    f"in brackets, for fewer than {MINIMAL_RUNS} runs: 95 % interval over cases, of these networks alone; says nothing "
    "about other seeds"
)


def score_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Report:
    """The scores of some evaluations: a column per operator, told apart by recipe and selection where they differ.

    The frame has a row for each metric, structure, unseen domain and column: metric, unit, structure, holdout,
    COLUMN_FIELDS, mean, sd, runs, the 95 % interval (low, high) within the metric's
    possible range, what that was resampled over (runs and cases, or cases alone for fewer than
    MINIMAL_RUNS runs), and best: whether the value is bold.

    The title says what was scored, how checkpoints were chosen, and PHANTOM where it is one; the notes count penalised
    and excluded cases, name the protocol and say what bold means. In the layout a cell of fewer than MINIMAL_RUNS runs
    has the interval in place of the SD, and a column's mean is given where none of its cells is missing.

    Args:
        evaluations: at least one.
        metrics: keys of `METRICS`.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
        UsageError: an unknown metric.
    """
    check_metrics(metrics)
    names = captions_of(evaluations)
    cases = labelled(case_values(evaluations), names)
    best = _best(cases, metrics)
    frame = _frame(cases, names, metrics, best)
    few = frame.loc[frame["runs"] > 0, "runs"].min() < MINIMAL_RUNS
    notes = [*counts_and_protocol(evaluations, cases, metrics)]
    if few:
        notes.append(_BRACKETS)
    if any(each.columns for each in best.values()):
        tests = set().union(*(each.tests for each in best.values()))
        notes.append("; ".join([BOLD, *sorted(tests)]))
    return Report(frame, _layout(frame, names, best, title_of(evaluations), notes))


_Row = tuple[str, str | None, str | None]
"""Metric, structure and unseen domain of a row of the layout; None: the row of means."""


def _best(cases: pd.DataFrame, metrics: Sequence[str]) -> dict[_Row, Best]:
    """The best columns of each row of the layout."""
    cells = {
        (str(place[0]), str(place[1])): cell for place, cell in cases.groupby(["structure", "holdout"], sort=False)
    }
    found: dict[_Row, Best] = {}
    for metric in metrics:
        higher = METRICS[metric].higher_is_better
        for (structure, holdout), cell in cells.items():
            found[metric, structure, holdout] = best_columns(cell, metric, higher_is_better=higher)
        found[metric, None, None] = best_columns(cases, metric, higher_is_better=higher)
    return found


def _frame(
    cases: pd.DataFrame, names: Mapping[Column, str], metrics: Sequence[str], best: Mapping[_Row, Best]
) -> pd.DataFrame:
    cells = {where: cell for where, cell in cases.groupby(["structure", "holdout", "column"], sort=False)}
    runs = labelled(summarise(cases), names)
    run_means = {where: cell for where, cell in runs.groupby(["structure", "holdout", "column"], sort=False)}
    rows = []
    for metric, structure, holdout, column in product(metrics, STRUCTURES, sorted(set(cases["holdout"])), names):
        row = {"metric": metric, "unit": METRICS[metric].unit, "structure": structure, "holdout": holdout}
        where = (structure, holdout, names[column])
        values = run_means[where][metric].dropna() if where in run_means else pd.Series(dtype=float)
        mean, sd = mean_sd(values)
        low = high = math.nan
        over = None
        if len(values):
            scores = cells[where].pivot(index="seed", columns="case", values=metric)
            whole = scores.dropna(how="all").dropna(axis="columns")  # no run whose records are older than the metric
            interval = bootstrap_interval(whole).within(*METRICS[metric].bounds)
            low, high, over = interval.low, interval.high, interval.over
        numbers = {"mean": mean, "sd": sd, "runs": len(values), "low": low, "high": high, "over": over}
        bold = names[column] in best[metric, structure, holdout].columns
        rows.append({**row, **asdict(column), **numbers, "best": bold})
    return pd.DataFrame(rows)


def _layout(
    frame: pd.DataFrame, names: Mapping[Column, str], best: Mapping[_Row, Best], title: str, notes: Sequence[str]
) -> Table:
    columns = tuple(names.values())
    rows: list[tuple[str, ...]] = []
    places: list[_Row] = []
    for metric, own in frame.groupby("metric", sort=False):
        heading = METRICS[str(metric)].heading
        for place, cells in own.groupby(["structure", "holdout"], sort=False):
            structure, holdout = map(str, place)
            numbers = zip(cells["runs"], cells["mean"], cells["sd"], cells["low"], cells["high"], strict=True)
            rows.append((heading, _NAMES[structure], holdout, *(_cell_text(*cell) for cell in numbers)))
            places.append((str(metric), structure, holdout))
        means = [overall(cells["mean"]) for _, cells in own.groupby(list(COLUMN_FIELDS), sort=False)]
        rows.append((heading, "mean", ", ".join(own["holdout"].unique()), *map(mean_sd_text, means)))
        places.append((str(metric), None, None))
    bold = {
        (row, number)
        for row, place in enumerate(places)
        for number, column in enumerate(columns)
        if column in best[place].columns
    }
    return Table(title, ("metric", "structure", "unseen"), columns, tuple(rows), tuple(notes), frozenset(bold))


def _cell_text(runs: int, mean: float, sd: float, low: float, high: float) -> str:
    """`87.31 ± 0.52`; `87.31 [85.0, 89.2]` of fewer than MINIMAL_RUNS runs; `missing` where no run stands."""
    return mean_interval_text(mean, low, high) if 0 < runs < MINIMAL_RUNS else mean_sd_text(mean, sd)


def overall(means: Sequence[float] | pd.Series) -> float:
    """The mean of a column's cells, NaN if one of them is missing."""
    return float(np.mean([*means]))


def title_of(evaluations: Sequence[Evaluation], what: str = "Unseen domains") -> str:
    """What was scored, how often, how checkpoints were chosen, and PHANTOM first where it is one."""
    counts = Counter((each.meta.column, each.meta.run.holdout) for each in evaluations).values()
    least, most = min(counts), max(counts)
    unit = "ensemble" if any(each.meta.members for each in evaluations) else "run"
    units = counted(most, unit) if least == most else f"{least} to {counted(most, unit)}"
    return table_title(f"{what}, {units} per cell", evaluations)
