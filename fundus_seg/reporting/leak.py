"""The leak meter: what choosing checkpoints on the scored cases themselves would seem to gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.reporting.frames import captions_of, case_values, labelled, labels_of
from fundus_seg.reporting.notes import captions, patients_note, protocol_note, table_title
from fundus_seg.reporting.table import Report, Table, difference_text
from fundus_seg.statistics.comparison import by_holdout, paired_scores
from fundus_seg.statistics.intervals import MINIMAL_RUNS
from fundus_seg.statistics.patients import patients_interval

SOURCE_VALIDATION, ORACLE = "source-validation", "oracle"
_METRIC = "dsc"


def leak_table(evaluations: Sequence[Evaluation]) -> Report | None:
    """Dice of selection `oracle` minus that of `source-validation`: rows are unseen domains, columns are operators.

    Both are of the same runs and the same cases: the interval is of the paired differences, over runs and cases (of
    fewer than three runs over cases alone), each case the mean over structures. Domains weigh the same in the mean.

    The frame has a row for each operator, recipe, preset and precision, and for each unseen domain, then one for their
    mean, whose holdout is NA: holdout, difference, and the ends of its interval, low and high.

    Args:
        evaluations: those of any selections; other selections than these two are left out.

    Returns:
        None where either selection has no evaluation.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    kept = [evaluation for evaluation in evaluations if evaluation.meta.selection in (SOURCE_VALIDATION, ORACLE)]
    if len({evaluation.meta.selection for evaluation in kept}) < 2:
        return None
    names = captions_of(kept)
    values = labelled(case_values(kept), names)
    by_label = {label: own for label, own in values.groupby("column", sort=False)}
    holdouts = sorted(values["holdout"].unique())
    operators = captions((replace(column, selection="") for column in names), labels_of(kept))
    notes: list[str] = []
    rows = []
    for operator in operators:
        labels = [names.get(replace(operator, selection=selection), "") for selection in (ORACLE, SOURCE_VALIDATION)]
        both = pd.concat([by_label.get(label, values[:0]) for label in labels])
        differences, unpaired = _differences(both, *labels)
        notes += unpaired
        cells = [(holdout, [differences[holdout]] if holdout in differences else []) for holdout in holdouts]
        cells.append((None, list(differences.values()) if len(differences) == len(holdouts) else []))
        identity = {key: text for key, text in asdict(operator).items() if key != "selection"}
        rows += [{**identity, "holdout": holdout, **_with_interval(cell)} for holdout, cell in cells]
    notes.append(patients_note(kept))
    notes.append(
        f"{ORACLE} minus {SOURCE_VALIDATION}, of the same runs, with its 95 % interval over runs and cases, of fewer "
        f"than {MINIMAL_RUNS} runs over cases alone; above 0, the oracle shows more than a user of these networks "
        "would get"
    )
    notes.append(protocol_note(kept[0].meta.protocol))
    frame = pd.DataFrame(rows)
    texts = [
        (label, *map(difference_text, own["difference"], own["low"], own["high"]))
        for label, (_, own) in zip([*holdouts, "mean"], frame.groupby("holdout", sort=False, dropna=False), strict=True)
    ]
    title = table_title(f"Leak meter, {METRICS[_METRIC].heading}", kept)
    return Report(frame, Table(title, ("unseen",), tuple(operators.values()), tuple(texts), tuple(notes)))


def _differences(
    values: pd.DataFrame, oracle_label: str, own_label: str
) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Oracle minus source-validation, by unseen domain: seed x case, mean over structures; and lines for the unpaired.

    Args:
        values: those of the two labels.
        oracle_label: the column of the oracle's checkpoints.
        own_label: the column of the checkpoints that source validation chose.
    """
    blocks, unpaired = paired_scores(values, oracle_label, own_label, _METRIC)
    differences = {}
    for holdout in dict.fromkeys(holdout for _, holdout in blocks):
        own = {(structure, where): block for (structure, where), block in blocks.items() if where == holdout}
        oracle, source_validation = by_holdout(own)[0]
        if oracle.size:
            differences[holdout] = oracle - source_validation
    return differences, unpaired


def _with_interval(differences: Sequence[pd.DataFrame]) -> dict[str, float]:
    """The mean over domains and the ends of its interval; NaN where there is none."""
    if not differences:
        return dict.fromkeys(("difference", "low", "high"), math.nan)
    interval = patients_interval(*differences).within(-100, 100)
    mean = float(np.mean([each.to_numpy().mean() for each in differences]))
    return {"difference": mean, "low": interval.low, "high": interval.high}
