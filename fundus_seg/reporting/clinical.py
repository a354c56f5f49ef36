"""The table of clinical values: cup-to-disc ratios, and predictions that are anatomically invalid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import product

import pandas as pd

from fundus_seg.evaluation.policy import RATIOS, cup_to_disc_ratios
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_case import FAULTS
from fundus_seg.reporting.floors import floors_of, networks
from fundus_seg.reporting.frames import captions_of, check_one_table, joined, labelled
from fundus_seg.reporting.notes import patients_note, protocol_note, recipe_notes, unpredicted_notes
from fundus_seg.reporting.table import Report, Table, mean_sd_text
from fundus_seg.reporting.tables import overall, title_of
from fundus_seg.runs.identity import COLUMN_FIELDS, READERS, Column
from fundus_seg.statistics.intervals import mean_sd

_ERRORS = {f"{ratio}_error": f"{ratio[0]}CDR error" for ratio in RATIOS}
_INVALID = {"outside_disc": "cup outside disc", "components": "several components", "holes": "holes"}
_ALLOWED = pd.Series({"outside_disc": 0, "components": 1, "holes": 0})
_DIGITS = 3


def case_ratios(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """`cup_to_disc_ratios` of all evaluations: one row per run and case, with RUN_FIELDS before it."""
    return joined(evaluations, cup_to_disc_ratios)


def clinical_table(evaluations: Sequence[Evaluation]) -> Report:
    """Errors of the cup-to-disc ratios, then counts of anatomically invalid predictions; columns as in `score_table`.

    An error is the mean over runs of each run's mean over cases, ± SD (n - 1) over runs. Undefined and excluded cases
    are in no mean; the notes count them. Counts are of all predictions, summed over runs.

    The frame has a row for each measure, unseen domain and column: measure, holdout, COLUMN_FIELDS, then mean, sd and
    runs of an error, or the number of invalid predictions and that of all predictions.

    Args:
        evaluations: at least one; the floors of runs are read from their folders.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    own, floors = networks(evaluations), floors_of(evaluations)
    shown = [*floors.shown, *own]
    check_one_table(shown)
    names = captions_of(shown)
    ratios = labelled(case_ratios(shown), names)
    invalid = labelled(joined([*floors.evaluations, *own], _invalid), names)
    runs = ratios.groupby(["holdout", "column", "seed"])[list(_ERRORS)].mean().reset_index()
    frames = [_cells(runs, _ERRORS, names, _error), _cells(invalid, _INVALID, names, _count)]
    frame = pd.concat(frames, ignore_index=True)
    counts = ["runs", "invalid", "predictions"]
    frame[counts] = frame[counts].astype("Int64")
    notes = (
        *(_undefined_note(name, ratios[ratios["column"] == name]) for name in names.values()),
        "undefined: no disc predicted; excluded: no true disc or cup; neither is in an error; both are counted over "
        "the cases of all runs",
        "error: |predicted - true ratio| of cup to disc, v of their rows, h of their columns, a of their pixels; mean "
        "over cases, then over runs",
        "n of N: of the predictions of all runs, those with cup pixels outside the disc, or whose disc or cup has "
        "several components (8-connected) or holes, before post-processing",
        *floors.notes,
        *floors.ceiling_notes,
        *recipe_notes(each.meta.column for each in own),
        *unpredicted_notes(own),
        patients_note(own),
        protocol_note(own[0].meta.protocol),
    )
    title = title_of(own, "Clinical values, unseen domains")
    rows = tuple(_layout_rows(frame))
    return Report(frame, Table(title, ("measure", "unseen"), tuple(names.values()), rows, notes))


def _invalid(evaluation: Evaluation) -> pd.DataFrame:
    """One row per case: case, then for each of FAULTS whether the predicted disc or cup has it."""
    cases = evaluation.cases
    return (cases[list(FAULTS)] > _ALLOWED[list(FAULTS)]).groupby(cases["case"]).any().reset_index()


def _cells(
    rows: pd.DataFrame,
    measures: Iterable[str],
    names: Mapping[Column, str],
    numbers: Callable[[pd.Series], dict[str, float]],
) -> pd.DataFrame:
    """A row for each measure, unseen domain and column, with the numbers of the measure's values there."""
    cells = {where: own for where, own in rows.groupby(["holdout", "column"])}
    where = product(measures, sorted(set(rows["holdout"])), names.items())
    return pd.DataFrame(
        {"measure": measure, "holdout": holdout, **asdict(column)}
        | numbers(cells.get((holdout, name), rows[:0])[measure])
        for measure, holdout, (column, name) in where
    )


def _error(runs: pd.Series) -> dict[str, float]:
    mean, sd = mean_sd(runs.dropna())
    return {"mean": mean, "sd": sd, "runs": runs.count()}


def _count(cases: pd.Series) -> dict[str, float]:
    return {"invalid": int(cases.sum()), "predictions": len(cases)}


def _layout_rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """For each measure a row for each unseen domain, then one of all of them."""
    rows = []
    for measure, own in frame.groupby("measure", sort=False):
        for holdout, cells in own.groupby("holdout", sort=False):
            if measure in _ERRORS:
                texts = [mean_sd_text(mean, sd, _DIGITS) for mean, sd in zip(cells["mean"], cells["sd"], strict=True)]
            else:
                counts = zip(cells["invalid"], cells["predictions"], cells["operator"], strict=True)
                texts = [_count_text(*each) for each in counts]
            rows.append((_name(measure), str(holdout), *texts))
        columns = [cells for _, cells in own.groupby(list(COLUMN_FIELDS), sort=False)]
        if measure in _ERRORS:
            means = [overall(cells["mean"]) for cells in columns]
            rows.append((_name(measure), "mean", *(mean_sd_text(mean, math.nan, _DIGITS) for mean in means)))
        else:
            rows.append((_name(measure), "all", *map(_overall_count_text, columns)))
    return rows


def _name(measure: object) -> str:
    return {**_ERRORS, **_INVALID}[str(measure)]


def _count_text(invalid: int, predictions: int, operator: str) -> str:
    """`2 of 50`; `missing` where no run stands; `-` for readers, who predict nothing."""
    return f"{invalid} of {predictions}" if predictions else "-" if operator == READERS else "missing"


def _overall_count_text(cells: pd.DataFrame) -> str:
    """The sum of a column's cells, if none is missing."""
    whole = bool((cells["predictions"] > 0).all())
    invalid, predictions = (int(cells[name].sum()) if whole else 0 for name in ("invalid", "predictions"))
    return _count_text(invalid, predictions, cells["operator"].iloc[0])


def _undefined_note(column: str, ratios: pd.DataFrame) -> str:
    excluded = ratios["excluded"]
    undefined = ratios["undefined"] & ~excluded  # without truth there was no error to define
    untold = int(ratios["not_annotated"].sum())
    further = f", {untold} not annotated" if untold else ""
    return f"{column}: {undefined.sum()} undefined, {excluded.sum() - untold} excluded{further} of {len(ratios)}"
