"""The table of what a clinic reads off the masks: cup-to-disc ratios, and predictions that no eye looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain

import pandas as pd

from fundus_seg.evaluation.policy import RATIOS, cup_to_disc_ratios
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_case import FAULTS
from fundus_seg.reporting.notes import protocol_note, recipe_notes, unpredicted_notes
from fundus_seg.reporting.table import Table
from fundus_seg.reporting.tables import (
    cell_values,
    cells_text,
    check_one_table,
    joined,
    runs_text,
    title_of,
)

_LABELS = ("measure", "unseen")
_ERRORS = {f"{ratio}_error": f"{ratio[0]}CDR error" for ratio in RATIOS}
_INVALID = {"outside_disc": "cup outside disc", "components": "several components", "holes": "holes"}
_ALLOWED = pd.Series({"outside_disc": 0, "components": 1, "holes": 0})
_DIGITS = 3


def case_ratios(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """`cup_to_disc_ratios` of all, a row a run and case, with column (of the table), holdout and seed besides."""
    return joined(evaluations, cup_to_disc_ratios)


def clinical_table(evaluations: Sequence[Evaluation]) -> Table:
    """Errors of the cup-to-disc ratios, then counts of anatomically invalid predictions; columns as in `build_table`.

    An error is the mean over runs of each run's mean over cases, ± SD (n - 1) over runs. Undefined and excluded cases
    are in no mean; the notes count them. Counts are of all predictions, summed over runs.

    Args:
        evaluations: at least one.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    check_one_table(evaluations)
    protocol = evaluations[0].meta.protocol
    ratios, invalid = case_ratios(evaluations), joined(evaluations, _invalid)
    columns, holdouts = tuple(ratios["column"].unique()), sorted(ratios["holdout"].unique())
    errors = ratios.groupby(["column", "holdout", "seed"])[list(_ERRORS)].mean().reset_index()
    rows: list[tuple[str, ...]] = []

    def add(
        names: Mapping[str, str],
        values: pd.DataFrame,
        text: Callable[[list[float]], str],
        overall: str,
        overall_text: Callable[[tuple[list[float], ...]], str],
    ) -> None:
        for measure, name in names.items():
            cells = [
                [cell_values(values, measure, column=column, holdout=holdout) for column in columns]
                for holdout in holdouts
            ]
            rows.extend((name, holdout, *map(text, row)) for holdout, row in zip(holdouts, cells, strict=True))
            rows.append((name, overall, *map(overall_text, zip(*cells, strict=True))))

    add(_ERRORS, errors, partial(runs_text, digits=_DIGITS), "mean", partial(cells_text, digits=_DIGITS))
    add(_INVALID, invalid, _count_text, "all", _overall_count_text)
    notes = (
        *(_undefined_note(column, ratios[ratios["column"] == column]) for column in columns),
        "undefined: no disc predicted; excluded: no true disc or cup; neither is in an error",
        "error: |predicted - true ratio| of cup to disc, v of their rows, h of their columns, a of their pixels; mean "
        "over cases, then over runs",
        "n of N: of the predictions of all runs, those with cup pixels outside the disc, or whose disc or cup has "
        "several components (8-connected) or holes, before post-processing",
        *recipe_notes(evaluations),
        *unpredicted_notes(evaluations),
        protocol_note(protocol),
    )
    return Table(title_of(evaluations, "Clinical values, unseen domains"), _LABELS, columns, tuple(rows), notes)


def _invalid(evaluation: Evaluation) -> pd.DataFrame:
    """A row a case: case, then for each of FAULTS whether the predicted disc or cup has it."""
    cases = evaluation.cases
    return (cases[list(FAULTS)] > _ALLOWED[list(FAULTS)]).groupby(cases["case"]).any().reset_index()


def _count_text(invalid: Sequence[float]) -> str:
    """`2 of 50`; `missing` where no run stands."""
    return f"{sum(invalid):.0f} of {len(invalid)}" if invalid else "missing"


def _overall_count_text(cells: Sequence[Sequence[float]]) -> str:
    """The sum of a column's cells, if none is missing."""
    return _count_text([*chain(*cells)] if all(cells) else [])


def _undefined_note(column: str, ratios: pd.DataFrame) -> str:
    excluded = ratios["excluded"]
    undefined = ratios["undefined"] & ~excluded  # without truth there was no error to define
    return f"{column}: {undefined.sum()} undefined, {excluded.sum()} excluded of {len(ratios)}"
