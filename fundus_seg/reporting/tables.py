"""The table in the paper's form, always rebuilt from case records: structure x unseen domain, a column per operator.

A cell is the mean over runs of each run's mean over cases, with the standard deviation (n - 1) over runs. Every run
counts once, every case counts once within its run, and nothing is averaged twice. The floor, the mean mask of the
source domains, is a column of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from fundus_seg.errors import counted
from fundus_seg.evaluation.alike import Alike
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.floors import floors_of, networks
from fundus_seg.reporting.frames import captions_of, case_values, labelled, summarise
from fundus_seg.reporting.notes import SCORE_AGAIN, counts_and_protocol, table_title
from fundus_seg.reporting.table import Report, Table, mean_interval_text, mean_sd_text
from fundus_seg.runs.identity import COLUMN_FIELDS, NO_NETWORK, Column
from fundus_seg.statistics.intervals import MINIMAL_RUNS, mean_sd
from fundus_seg.statistics.patients import case_scores, patients_interval
from fundus_seg.statistics.ties import BOLD, Best, best_columns

_NAMES = {"disc": "disc (OD)", "cup": "cup (OC)"}
_BRACKETS = (
    f"in brackets, for fewer than {MINIMAL_RUNS} runs: 95 % interval over cases, of these networks alone; says nothing "
    "about other seeds"
)


def score_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Report:
    """The scores of some evaluations: a column per operator, told apart by recipe and selection where they differ.

    The frame has a row for each metric, structure, unseen domain and column: metric, unit, structure, holdout,
    COLUMN_FIELDS, mean, sd, runs, the 95 % interval (low, high) within the metric's possible range, what that was
    resampled over (runs and cases, or cases alone for fewer than MINIMAL_RUNS runs), and best: whether the value is
    bold. Then how alike the masks of different cases are, as their mean pairwise IoU in [0, 1]: of predictions (alike)
    and of true masks (true_alike), NaN where it is not known. The floor has rows of its own, of operator `mean-mask`,
    and so has the ceiling where a domain's readers are kept apart, of operator `readers`; no test sees them, and they
    are never bold.

    The title says what was scored, how checkpoints were chosen, and PHANTOM where it is one. The notes count penalised
    and excluded cases, name columns whose predictions hardly vary between cases, name the protocol and say what bold
    means. In the layout a cell of fewer than MINIMAL_RUNS runs has the interval in place of the SD, and a column's mean
    is given where none of its cells is missing, of those in which somebody has annotated the structure.

    Args:
        evaluations: at least one; the floors and ceilings of runs are read from their folders.
        metrics: keys of `METRICS`.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
        UsageError: an unknown metric.
    """
    check_metrics(metrics)
    own, floors = networks(evaluations), floors_of(evaluations)
    shown = [*floors.shown, *own]
    names = captions_of(shown)
    cases = labelled(case_values(shown), names)
    scored = cases[cases["preset"] != NO_NETWORK]
    best = _best(scored, metrics)
    frame = _frame(cases, names, metrics, best).join(_alike(shown), on=[*COLUMN_FIELDS, "holdout", "structure"])
    few = frame.loc[(frame["runs"] > 0) & (frame["preset"] != NO_NETWORK), "runs"].min() < MINIMAL_RUNS
    beside = [*floors.notes, *floors.ceiling_notes]
    notes = [*counts_and_protocol(shown, cases, metrics), *beside, *_alike_notes(frame, names, own)]
    if few:
        notes.append(_BRACKETS)
    if any(each.columns for each in best.values()):
        tests = set().union(*(each.tests for each in best.values()))
        notes.append("; ".join([BOLD, *sorted(tests)]))
    untold = cases.groupby(["structure", "holdout"])["not_annotated"].all()
    title = title_of(own or evaluations)
    return Report(frame, _layout(frame, names, best, {*untold.index[untold]}, title, notes))


def _alike(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """How alike masks are, means over runs: alike and true_alike by COLUMN_FIELDS, holdout and structure."""
    rows = [
        {**asdict(each.meta.column), "holdout": each.meta.run.holdout, "structure": structure}
        | {"alike": alike.predictions, "true_alike": alike.truths}
        for each in evaluations
        for structure, alike in (each.alike or {}).items()
    ]
    index = [*COLUMN_FIELDS, "holdout", "structure"]
    return pd.DataFrame(rows, columns=[*index, "alike", "true_alike"]).groupby(index).mean()


def _alike_notes(frame: pd.DataFrame, names: Mapping[Column, str], evaluations: Sequence[Evaluation]) -> list[str]:
    """A line for each column that has cells in which predictions hardly vary, and one for what is not known.

    The floor is passed over: it is one mask by construction.
    """
    once = (frame["metric"] == frame["metric"].iloc[0]) & (frame["preset"] != NO_NETWORK)
    cells = frame[once].dropna(subset=["alike"])
    notes = []
    for column, caption in names.items():
        own = cells[(cells[list(COLUMN_FIELDS)] == [*asdict(column).values()]).all(axis=1)]
        flagged = own[[Alike(*pair).hardly_varies for pair in zip(own["alike"], own["true_alike"], strict=True)]]
        if len(flagged):
            worst = flagged.loc[(flagged["alike"] - flagged["true_alike"]).idxmax()]
            notes.append(
                f"{caption}: predictions hardly vary between cases in {len(flagged)} of {counted(len(own), 'cell')}, "
                f"less than half as much as true masks; mean pairwise IoU {worst['alike']:.2f} beside their "
                f"{worst['true_alike']:.2f} ({worst['structure']}, unseen {worst['holdout']})"
            )
    if unknown := [each.path for each in evaluations if each.alike is None]:
        notes.append(
            f"how much predictions vary between cases is not known of {counted(len(unknown), 'evaluation')}, "
            f"{unknown[0]} first; {SCORE_AGAIN}"
        )
    return notes


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
    run_means = {where: own for where, own in runs.groupby(["structure", "holdout", "column"], sort=False)}
    rows = []
    for metric, structure, holdout, column in product(metrics, STRUCTURES, sorted(set(cases["holdout"])), names):
        row = {"metric": metric, "unit": METRICS[metric].unit, "structure": structure, "holdout": holdout}
        where = (structure, holdout, names[column])
        means = run_means.get(where, runs[:0])[metric]
        numbers, over = cell_numbers(cells.get(where, cases[:0]), means, metric, METRICS[metric].bounds)
        bold = names[column] in best[metric, structure, holdout].columns
        rows.append({**row, **asdict(column), **numbers, "over": over, "best": bold})
    return pd.DataFrame(rows)


def cell_numbers(
    cell: pd.DataFrame, means: pd.Series, metric: str, bounds: tuple[float, float]
) -> tuple[dict[str, float], str | None]:
    """Mean, SD and number of runs of a cell, and the ends of its 95 % interval; then what was resampled for that.

    Args:
        cell: one row per run and case, as in `case_scores`; none where no run stands.
        means: the mean of each run; NaN where its records are older than the metric.
        metric: name of the column of scores.
        bounds: the metric's possible range.
    """
    values = means.dropna()
    mean, sd = mean_sd(values)
    numbers = {"mean": mean, "sd": sd, "runs": len(values), "low": math.nan, "high": math.nan}
    # without runs whose records are older than the metric
    whole = case_scores(cell, metric).dropna(how="all").dropna(axis="columns")
    if not whole.size:
        return numbers, None
    interval = patients_interval(whole).within(*bounds)
    return {**numbers, "low": interval.low, "high": interval.high}, interval.over


def _layout(
    frame: pd.DataFrame,
    names: Mapping[Column, str],
    best: Mapping[_Row, Best],
    untold: Collection[tuple[str, str]],
    title: str,
    notes: Sequence[str],
) -> Table:
    """The layout; `untold` are the structures and domains of which nobody has annotated a case: they are in no mean."""
    columns = tuple(names.values())
    rows: list[tuple[str, ...]] = []
    places: list[_Row] = []
    for metric, own in frame.groupby("metric", sort=False):
        heading = METRICS[str(metric)].heading
        for place, cells in own.groupby(["structure", "holdout"], sort=False):
            structure, holdout = map(str, place)
            texts = [cell_text(*cell) for cell in zip(names, cells.to_dict("records"), strict=True)]
            if place in untold:
                texts = ["not annotated"] * len(texts)
            rows.append((heading, _NAMES[structure], holdout, *texts))
            places.append((str(metric), structure, holdout))
        told = own[[place not in untold for place in zip(own["structure"], own["holdout"], strict=True)]]
        means = [overall(cells["mean"]) for _, cells in told.groupby(list(COLUMN_FIELDS), sort=False)]
        rows.append((heading, "mean", ", ".join(own["holdout"].unique()), *map(mean_sd_text, means)))
        places.append((str(metric), None, None))
    bold = {
        (row, number)
        for row, place in enumerate(places)
        for number, column in enumerate(columns)
        if column in best[place].columns
    }
    return Table(title, ("metric", "structure", "unseen"), columns, tuple(rows), tuple(notes), frozenset(bold))


def cell_text(column: Column, numbers: Mapping[Any, Any], digits: int = 2) -> str:
    """`87.31 ± 0.52`; `87.31 [85.0, 89.2]` of fewer than MINIMAL_RUNS runs; `missing` where no run stands.

    The floor is no run of several, and its text is the mean alone; that of the ceiling has its interval over cases.

    Args:
        column: the column that the cell is in.
        numbers: as `cell_numbers` gives them.
        digits: how many decimals.
    """
    if 0 < numbers["runs"] < MINIMAL_RUNS and not column.floor:
        return mean_interval_text(numbers["mean"], numbers["low"], numbers["high"], digits)
    return mean_sd_text(numbers["mean"], numbers["sd"], digits)


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
