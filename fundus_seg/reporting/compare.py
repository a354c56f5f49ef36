"""The table that compares two operators."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from fundus_seg.errors import UsageError
from fundus_seg.evaluation.metric_table import METRICS, check_metrics
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.reporting.notes import counts_and_protocol, table_title
from fundus_seg.reporting.numbers import data_text, difference_text, p_text
from fundus_seg.reporting.table import Table
from fundus_seg.reporting.tables import case_values, in_order
from fundus_seg.statistics.comparison import Cell, OperatorComparison, compare_operators
from fundus_seg.statistics.intervals import MINIMAL_RUNS

_NUMBERS = (
    *("first_mean", "second_mean", "difference", "low", "high", "p", "p_holm", "p_runs", "rank_biserial"),
    *("runs", "cases", "detectable", "sought", "runs_needed"),
)
"""Of a row for a program to read, after its labels and names, before `over`."""


def operators_table(
    evaluations: Sequence[Evaluation],
    names: Sequence[str] | None = None,
    *,
    metric: str = "dsc",
    sought: float = 1.0,
    tidy: bool = False,
) -> Table:
    """Two operators compared by one metric, the first minus the second.

    Its title says how checkpoints were chosen, and PHANTOM where it is one; its notes say what the numbers are, what
    was not compared, the counts and the protocol.

    Args:
        evaluations: of runs, of masks from elsewhere or of both; those of the two operators among them.
        names: the two columns, or their operators where that is clear; None where there are just two, of which the
            later in a table's order is the first here.
        metric: a key of `METRICS`.
        sought: the difference, in the metric's unit, to say the needed runs for.
        tidy: for a program to read: every number in a column of its own, NA where there is none.

    Raises:
        UsageError: not two columns, or an unknown one or metric.
        ProtocolError: evaluations that must not stand in one table, or with nothing in common.
    """
    check_metrics([metric])
    values = case_values(evaluations)
    named = in_order(evaluations)
    columns = list(dict.fromkeys(column for column, _ in named))
    pair = [_column(name, columns) for name in names or reversed(columns)]
    if len(pair) != 2:
        raise UsageError(f"two operators are compared: name them with --ops, of {', '.join(columns)}")
    comparison = compare_operators(values, *pair, metric=metric, sought=sought)
    own = [evaluation for name, evaluation in named if name in pair]
    title = table_title(f"{METRICS[metric].heading}, unseen domains: {pair[0]} and {pair[1]}", own)
    elsewhere = {column for column, evaluation in named if evaluation.meta.elsewhere}
    notes = (*_notes(comparison, elsewhere), *counts_and_protocol(own, values[values["column"].isin(pair)], [metric]))
    labels, header, rows = (_tidy if tidy else _printed)(comparison)
    return Table(title, labels, header, rows, notes)


def _column(name: str, columns: Sequence[str]) -> str:
    """The column of that name; else the only one of that operator, if there is just one."""
    fitting = [column for column in columns if column.partition(" ")[0] == name]
    return fitting[0] if name not in columns and len(fitting) == 1 else name


_Body = tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]
"""Labels, columns and rows of a table."""


def _printed(comparison: OperatorComparison) -> _Body:
    """A row for each cell and one for all: means, difference with its interval, tests, effect size, power."""
    columns = (
        comparison.first,
        comparison.second,
        "difference [95 %]",
        "p (Holm)",
        "rank-biserial",
        "runs",
        "cases",
        "p (runs)",
        "detectable",
        f"runs for {comparison.sought:g}",
    )
    overall = comparison.overall
    last = _row(overall) if overall else ("all", "all", *["missing"] * 3, *["-"] * (len(columns) - 3))
    return ("structure", "unseen"), columns, (*map(_row, comparison.cells), last)


def _row(cell: Cell) -> tuple[str, ...]:
    starred = "*" if cell.interval.over == "cases" else ""
    return (
        cell.structure or "all",
        cell.holdout or "all",
        f"{cell.first:.2f}",
        f"{cell.second:.2f}",
        f"{difference_text(cell.difference, cell.interval.low, cell.interval.high)}{starred}",
        p_text(cell.p_holm),
        f"{cell.rank_biserial:+.2f}",
        str(cell.runs),
        str(cell.cases),
        p_text(cell.p_runs),
        "-" if math.isnan(cell.detectable) else f"{cell.detectable:.2f}",
        str(cell.runs_needed) if cell.runs_needed else "-" if cell.runs < 2 else "over 10000",
    )


def _tidy(comparison: OperatorComparison) -> _Body:
    """The same for a program: NA also for `runs_needed` above 10000."""
    metric = METRICS[comparison.metric]
    cells = [*comparison.cells, *([comparison.overall] if comparison.overall else [])]
    rows = tuple(
        (
            *(metric.label, metric.unit, cell.structure or "all", cell.holdout or "all"),
            *(comparison.first, comparison.second),
            *map(data_text, _numbers(cell, comparison.sought)),
            cell.interval.over,
        )
        for cell in cells
    )
    return ("metric", "unit", "structure", "holdout"), ("first", "second", *_NUMBERS, "over"), rows


def _numbers(cell: Cell, sought: float) -> tuple[float | None, ...]:
    """In the order of _NUMBERS."""
    return (
        *(cell.first, cell.second, cell.difference, cell.interval.low, cell.interval.high),
        *(cell.p, cell.p_holm, cell.p_runs, cell.rank_biserial),
        *(cell.runs, cell.cases, cell.detectable, sought, cell.runs_needed),
    )


def _notes(comparison: OperatorComparison, elsewhere: Collection[str]) -> tuple[str, ...]:
    unit = "points" if METRICS[comparison.metric].unit == "%" else "pixels of 800"
    few = any(cell.interval.over == "cases" for cell in comparison.cells)
    whole = "the mean over unseen domains of the mean over structures"
    return (
        f"difference: {comparison.first} minus {comparison.second} in {unit}, runs paired by seed, cases by name; all: "
        + (whole if comparison.overall else f"{whole}, missing as long as a cell of either operator is not compared"),
        "95 % interval: bootstrap over runs and cases"
        + (
            f"; over cases only, marked *, below {MINIMAL_RUNS} runs: it then says nothing about other seeds"
            if few
            else ""
        ),
        f"p: Wilcoxon's signed-rank test on case means over seeds, of these networks; Holm over the "
        f"{len(comparison.cells)} cells; over all it pools the cases of all domains, one test on its own",
        "rank-biserial: 1 where the first is larger in every case, -1 where the second is",
        "p (runs): paired t-test over runs, of other seeds too, not adjusted; detectable: the smallest difference that "
        f"this t-test finds with 80 % power; runs for {comparison.sought:g}: how many it needs to find one of "
        f"{comparison.sought:g}",
        *(
            f"{name}: masks from elsewhere, selection and recipe unknown; its seeds share no batches with the other's"
            for name in (comparison.first, comparison.second)
            if name in elsewhere
        ),
        *(f"not compared: {line}" for line in comparison.unpaired),
    )
