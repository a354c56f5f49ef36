"""The leak meter: what choosing checkpoints on the scored cases themselves would seem to gain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fundus_seg.builtins import CheckpointName
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.reporting.notes import protocol_note, table_title
from fundus_seg.reporting.numbers import data_text, difference_text
from fundus_seg.reporting.table import Table
from fundus_seg.reporting.tables import case_values
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.record import is_probed, recorded_settings
from fundus_seg.statistics.comparison import by_holdout, paired_scores
from fundus_seg.statistics.intervals import MINIMAL_RUNS, bootstrap_interval

HONEST, LEAKING = "source-validation", "oracle"
_METRIC = "dsc"


def checkpoints_to_compare(run: RunFolder, *, progress: Progress = SILENT) -> list[CheckpointName]:
    """A checkpoint for each selection of a trained run: `last`, its own and, if it was probed, `oracle`.

    Args:
        run: its config.yaml is read.
        progress: told of a run without a probe.

    Raises:
        RunError: config.yaml is not that of a run.
    """
    by_selection: dict[str, CheckpointName] = {"last": "last"}
    if is_probed(run.read_config()):
        by_selection[LEAKING] = "oracle"
    by_selection[recorded_settings(run).train.selection] = "best"
    if LEAKING not in by_selection:
        progress.line(f"{run.path}: trained without --probe-holdout, missing in the column of selection oracle")
    return list(by_selection.values())


def leak_table(evaluations: Sequence[Evaluation], *, tidy: bool = False) -> Table | None:
    """Dice of selection `oracle` minus that of `source-validation`: a row an unseen domain, a column an operator.

    Both are of the same runs and the same cases: the interval is of the paired differences, over runs and cases (of
    fewer than three runs over cases alone), each case the mean over structures. Domains weigh the same in the mean.

    Args:
        evaluations: of any selections; other ones than these two are left out.
        tidy: for a program to read: a row an operator and unseen domain or `mean`, the interval's ends apart, `NA`
            where there is none.

    Returns:
        None where either selection has no evaluation.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    kept = [evaluation for evaluation in evaluations if evaluation.meta.selection in (HONEST, LEAKING)]
    if len({evaluation.meta.selection for evaluation in kept}) < 2:
        return None
    values = case_values(kept)
    holdouts = sorted(values["holdout"].unique())
    operators = list(dict.fromkeys(column.rpartition(" [")[0] for column in values["column"]))
    notes: list[str] = []
    columns = []
    for operator in operators:
        differences, unpaired = _differences(values, operator)
        notes += unpaired
        cells = [[differences[holdout]] if holdout in differences else [] for holdout in holdouts]
        cells.append([*differences.values()] if len(differences) == len(holdouts) else [])
        columns.append([_with_interval(cell) for cell in cells])
    places = [*holdouts, "mean"]
    notes.append(
        f"{LEAKING} minus {HONEST}, of the same runs, with its 95 % interval over runs and cases, of fewer than "
        f"{MINIMAL_RUNS} runs over cases alone; above 0, the oracle shows more than a user of these networks would get"
    )
    notes.append(protocol_note(kept[0].meta.protocol))
    title = table_title(f"Leak meter, {METRICS[_METRIC].heading}", kept)
    if tidy:
        rows = [
            (operator, place, *map(data_text, values))
            for operator, column in zip(operators, columns, strict=True)
            for place, values in zip(places, column, strict=True)
        ]
        return Table(title, ("operator", "holdout"), ("difference", "low", "high"), tuple(rows), tuple(notes))
    texts = [[difference_text(*cell) for cell in column] for column in columns]
    return Table(title, ("unseen",), tuple(operators), tuple(zip(places, *texts, strict=True)), tuple(notes))


def _differences(values: pd.DataFrame, operator: str) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """By unseen domain, seed x case: oracle minus source-validation, mean over structures; and what has no partner."""
    oracle_column, honest_column = (f"{operator} [{selection}]" for selection in (LEAKING, HONEST))
    both = values[values["column"].isin([oracle_column, honest_column])]
    blocks, unpaired = paired_scores(both, oracle_column, honest_column, _METRIC)
    differences = {}
    for holdout in dict.fromkeys(where[1] for where in blocks):
        ((oracle, honest),) = by_holdout({where: block for where, block in blocks.items() if where[1] == holdout})
        if oracle.size:
            differences[holdout] = oracle - honest
    return differences, unpaired


def _with_interval(differences: Sequence[pd.DataFrame]) -> tuple[float, float, float]:
    """The mean over domains and the ends of its interval; NaN where there is none."""
    if not differences:
        return math.nan, math.nan, math.nan
    interval = bootstrap_interval(*differences)
    return float(np.mean([each.to_numpy().mean() for each in differences])), interval.low, interval.high
