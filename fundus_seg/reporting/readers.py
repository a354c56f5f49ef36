"""The table against readers: how well networks agree with each reader of a domain, beside how well readers agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import product

import pandas as pd

from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.policy import cup_to_disc_ratios, scored_values
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.floors import floors_of, networks
from fundus_seg.reporting.frames import captions_of, case_values, joined, labelled
from fundus_seg.reporting.notes import counts_and_protocol
from fundus_seg.reporting.table import Report, Table
from fundus_seg.reporting.tables import cell_numbers, cell_text, title_of
from fundus_seg.runs.identity import Column
from fundus_seg.statistics.intervals import MINIMAL_RUNS

ALL = "all"
"""What stands in place of a reader in the rows of all of them: the mean over readers, case by case."""
_VCDR = "vcdr_error"
_VCDR_IS = ("vCDR error", "", (0.0, math.inf))
"""Its heading, unit and possible range."""
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
        metric = METRICS.get(measure)
        heading, unit, bounds = (metric.heading, metric.unit, metric.bounds) if metric else _VCDR_IS
        for reader in (*sorted(readers), ALL):
            texts = []
            for column, name in names.items():
                cell = cells.get((measure, structure, holdout, reader, name), values[:0])
                numbers, _ = cell_numbers(cell, cell.groupby("seed")["value"].mean(), "value", bounds)
                place = {"measure": measure, "unit": unit, "structure": structure, "holdout": holdout}
                frame.append({**place, "reader": reader, **asdict(column), **numbers})
                texts.append(cell_text(column, numbers, 3 if measure == _VCDR else 2))
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
