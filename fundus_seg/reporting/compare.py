"""The table that compares two operators."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from fundus_seg.errors import UsageError
from fundus_seg.evaluation.comparison import Cell, Comparison, compare_operators
from fundus_seg.evaluation.evaluate import Evaluation
from fundus_seg.evaluation.metric import METRICS
from fundus_seg.evaluation.statistics import MINIMAL_RUNS
from fundus_seg.evaluation.tables import case_values, in_order
from fundus_seg.reporting.numbers import difference_text, p_text
from fundus_seg.table import Table

_PHANTOM = "PHANTOM, synthetic photographs, says nothing about patients. "


def operators_table(
    evaluations: Sequence[Evaluation], names: Sequence[str] | None = None, *, metric: str = "dsc", sought: float = 1.0
) -> Table:
    """Two operators compared by one metric, the first minus the second.

    Args:
        evaluations: of runs, of masks from elsewhere or of both; those of the two operators among them.
        names: the two columns, or their operators where that is clear; None where there are just two, of which the
            later in a table's order is the first here.
        metric: a key of `METRICS`.
        sought: the difference, in the metric's unit, to say the needed runs for.

    Raises:
        UsageError: not two columns, or an unknown one or metric.
        ProtocolError: evaluations that must not stand in one table, or with nothing in common.
    """
    values = case_values(evaluations)
    named = in_order(evaluations)
    columns = list(dict.fromkeys(column for column, _ in named))
    pair = [_column(name, columns) for name in names or reversed(columns)]
    if len(pair) != 2:
        raise UsageError(f"two operators are compared: name them with --ops, of {', '.join(columns)}")
    comparison = compare_operators(values, *pair, metric=metric, sought=sought)
    elsewhere = {column for column, evaluation in named if evaluation.meta.elsewhere}
    return comparison_table(comparison, phantom=evaluations[0].meta.phantom, elsewhere=elsewhere)


def _column(name: str, columns: Sequence[str]) -> str:
    """The column of that name; else the only one of that operator, if there is just one."""
    fitting = [column for column in columns if column.partition(" ")[0] == name]
    return fitting[0] if name not in columns and len(fitting) == 1 else name


def comparison_table(comparison: Comparison, *, phantom: bool, elsewhere: Collection[str] = ()) -> Table:
    """A row for each cell and one for all: means, difference with its interval, test, effect size, power.

    Args:
        comparison: of two operators by one metric.
        phantom: whether its photographs are synthetic.
        elsewhere: columns whose masks come from another tool.
    """
    unit = "points" if METRICS[comparison.metric].unit == "%" else "pixels of 800"
    columns = (
        comparison.first,
        comparison.second,
        "difference [95 %]",
        "p (Holm)",
        "rank-biserial",
        "runs",
        "cases",
        "detectable",
        f"runs for {comparison.sought:g}",
    )
    rows = [_comparison_row(cell) for cell in (*comparison.cells, comparison.overall)]
    few = comparison.overall.interval.over == "cases"
    notes = (
        f"difference: {comparison.first} minus {comparison.second} in {unit}, runs paired by seed, cases by name; all: "
        "the mean over unseen domains of the mean over structures",
        f"95 % interval: bootstrap over runs and cases; over cases only, marked *, below {MINIMAL_RUNS} runs: it then "
        "says nothing about other seeds"
        if few
        else "95 % interval: bootstrap over runs and cases",
        f"p: Wilcoxon's signed-rank test on case means over seeds, of these networks; Holm over the "
        f"{len(comparison.cells)} cells, the test over all on its own",
        "rank-biserial: 1 where the first is larger in every case, -1 where the second is",
        f"detectable: the smallest difference that a paired t-test over these runs finds with 80 % power; runs for "
        f"{comparison.sought:g}: how many it needs to find one of {comparison.sought:g}",
        *(
            f"{name}: masks from elsewhere, selection and recipe unknown; its seeds share no batches with the other's"
            for name in (comparison.first, comparison.second)
            if name in elsewhere
        ),
        *(f"not compared: {line}" for line in comparison.unpaired),
    )
    heading = METRICS[comparison.metric].heading
    title = f"{heading}, unseen domains: {comparison.first} and {comparison.second}"
    return Table(_PHANTOM * phantom + title, ("structure", "unseen"), columns, tuple(rows), notes)


def _comparison_row(cell: Cell) -> tuple[str, ...]:
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
        "-" if math.isnan(cell.detectable) else f"{cell.detectable:.2f}",
        str(cell.runs_needed) if cell.runs_needed else "-" if cell.runs < 2 else "over 10000",
    )
