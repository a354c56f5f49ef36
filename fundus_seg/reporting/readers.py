"""The table against readers: how well networks agree with each reader of a domain, beside how well readers agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

import pandas as pd

from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.policy import cup_to_disc_ratios, scored_values
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.floors import floors_of, networks
from fundus_seg.reporting.frames import captions_of, case_values, joined, labelled
from fundus_seg.reporting.notes import counts_and_protocol
from fundus_seg.reporting.table import Report, Table, mean_interval_text, mean_sd_text
from fundus_seg.reporting.tables import title_of
from fundus_seg.runs.identity import Column
from fundus_seg.statistics.intervals import MINIMAL_RUNS, mean_sd
from fundus_seg.statistics.patients import case_scores, patients_interval

ALL = "all"
"""What stands in place of a reader in the rows of all of them: the mean over readers, case by case."""
_VCDR = "vcdr_error"
_WHAT = (
    "each reader's own masks are the truth of its rows, by a protocol that never stands in one table with scores "
    "against merged truth; all: the mean over the readers of each case"
)
_READERS = (
    "readers in the row of one reader: the masks of the others against that reader's; vCDR error: |difference| of the "
    "vertical cup-to-disc ratios"
)
_BRACKETS = f"in brackets, for fewer than {MINIMAL_RUNS} runs: 95 % interval over cases"


def readers_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Report:
    """Scores against each reader of the holdouts, and the readers' own agreement, the ceiling, as a column beside them.

    The frame has a row for each measure, structure, unseen domain, reader and column: measure (a metric, or
    `vcdr_error`, whose structure is empty), unit, structure, holdout, reader (`all` for the mean over readers),
    COLUMN_FIELDS, mean, sd, runs, and the 95 % interval (low, high). Nothing is tested, and nothing is bold.

    Args:
        evaluations: at least one, scored against readers; their floors and ceilings are read from their folders.
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
    owners = cases.drop_duplicates(["holdout", "case"])[["holdout", "case", "patient"]]
    values = _long(shown, names, metrics).merge(owners, on=["holdout", "case"], how="left")
    cells = {where: cell for where, cell in values.groupby(["measure", "structure", "holdout", "reader", "column"])}
    places = values[["measure", "structure", "holdout"]].drop_duplicates().itertuples(index=False, name=None)
    order = {place: number for number, place in enumerate(product((*metrics, _VCDR), (*STRUCTURES, "")))}
    frame, rows = [], []
    for measure, structure, holdout in sorted(places, key=lambda place: (order[place[:2]], place[2])):
        readers = {*values.loc[values["holdout"] == holdout, "reader"]} - {ALL}
        for reader in (*sorted(readers), ALL):
            texts = []
            for column, name in names.items():
                numbers = _numbers(cells.get((measure, structure, holdout, reader, name)), measure)
                place = {"measure": measure, "unit": _unit(measure), "structure": structure, "holdout": holdout}
                frame.append({**place, "reader": reader, **asdict(column), **numbers})
                texts.append(_text(column, numbers, digits=3 if measure == _VCDR else 2))
            heading = METRICS[measure].heading if measure in METRICS else "vCDR error"
            rows.append((heading, structure, holdout, reader, *texts))
    notes = (
        _WHAT,
        _READERS,
        *counts_and_protocol(shown, cases, metrics),
        *floors.notes,
        *floors.ceiling_notes,
        _BRACKETS,
    )
    labels = ("metric", "structure", "unseen", "reader")
    layout = Table(
        title_of(own, "Against each reader, unseen domains"), labels, tuple(names.values()), tuple(rows), notes
    )
    return Report(pd.DataFrame(frame), layout)


def _long(evaluations: Sequence[Evaluation], names: dict[Column, str], metrics: Sequence[str]) -> pd.DataFrame:
    """A row for each run, case, measure, structure and reader, `all` of them included, with its `value`."""
    frames = []
    for apart in (True, False):
        scores = joined(evaluations, partial(scored_values, by_reader=apart))
        ratios = joined(evaluations, partial(cup_to_disc_ratios, by_reader=apart)).assign(structure="")
        for source, measures in ((scores, metrics), (ratios, [_VCDR])):
            own = labelled(source if apart else source.assign(reader=ALL), names)
            for measure in measures:
                kept = own[["column", "holdout", "seed", "reader", "structure", "case"]]
                frames.append(kept.assign(measure=measure, value=own[measure]))
    return pd.concat(frames, ignore_index=True)


def _numbers(cell: pd.DataFrame | None, measure: str) -> dict[str, Any]:
    """Mean, SD and number of runs of a cell, and its interval."""
    values = pd.Series(dtype=float) if cell is None else cell.groupby("seed")["value"].mean().dropna()
    mean, sd = mean_sd(values)
    low = high = math.nan
    if cell is not None and len(values):
        scores = case_scores(cell, "value").dropna(how="all").dropna(axis="columns")
        if scores.size:
            bounds = METRICS[measure].bounds if measure in METRICS else (0.0, math.inf)
            interval = patients_interval(scores).within(*bounds)
            low, high = interval.low, interval.high
    return {"mean": mean, "sd": sd, "runs": len(values), "low": low, "high": high}


def _text(column: Column, numbers: dict[str, Any], *, digits: int) -> str:
    """As in `score_table`: the mean with its SD or, of few runs and of the ceiling, its interval."""
    few = 0 < numbers["runs"] < MINIMAL_RUNS and not column.floor
    if few:
        return mean_interval_text(numbers["mean"], numbers["low"], numbers["high"], digits)
    return mean_sd_text(numbers["mean"], numbers["sd"], digits)


def _unit(measure: str) -> str:
    return METRICS[measure].unit if measure in METRICS else ""
