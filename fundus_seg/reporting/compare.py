"""Tables that compare: one operator beside another, and ours beside published ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from fundus_seg.errors import ProtocolError, UsageError
from fundus_seg.evaluation.comparison import Cell, Comparison, compare_operators
from fundus_seg.evaluation.equivalence import Summary, equivalence
from fundus_seg.evaluation.metric import METRICS
from fundus_seg.evaluation.statistics import MINIMAL_RUNS, mean_sd
from fundus_seg.evaluation.tables import case_values, in_order
from fundus_seg.reporting.deviations import deviations
from fundus_seg.reporting.published import PublishedCell, PublishedTable
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.table import Table

MARGINS = {"%": 1.0, "px of 800": 2.0}
"""The largest difference that counts as none: 1 point of an overlap, 2 pixels of a distance."""

_PHANTOM = "PHANTOM, synthetic photographs, says nothing about patients. "


def operators_table(
    runs: Sequence[ScoredRun], names: Sequence[str] | None = None, *, metric: str = "dsc", sought: float = 1.0
) -> Table:
    """Two operators compared by one metric, the first minus the second.

    Args:
        runs: with those of both operators among them.
        names: the two columns; None where there are just two, of which the later in a table's order is the first here.
        metric: a key of `METRICS`.
        sought: the difference, in the metric's unit, to say the needed runs for.

    Raises:
        UsageError: not two columns, or an unknown one or metric.
        ProtocolError: runs that must not stand in one table, or with nothing in common.
    """
    evaluations = [run.evaluation for run in runs]
    values = case_values(evaluations)
    columns = list(dict.fromkeys(values["column"]))
    pair = list(names or reversed(columns))
    if len(pair) != 2:
        raise UsageError(f"two operators are compared: name them with --ops, of {', '.join(columns)}")
    comparison = compare_operators(values, *pair, metric=metric, sought=sought)
    return comparison_table(comparison, phantom=evaluations[0].meta.phantom)


def comparison_table(comparison: Comparison, *, phantom: bool) -> Table:
    """A row for each cell and one for all: means, difference with its interval, test, effect size, power.

    Args:
        comparison: of two operators by one metric.
        phantom: whether its photographs are synthetic.
    """
    unit = METRICS[comparison.metric].unit
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
        f"{_difference(cell.difference, cell.interval.low, cell.interval.high)}{starred}",
        _p(cell.p_holm),
        f"{cell.rank_biserial:+.2f}",
        str(cell.runs),
        str(cell.cases),
        "-" if math.isnan(cell.detectable) else f"{cell.detectable:.2f}",
        str(cell.runs_needed) if cell.runs_needed else "-" if cell.runs < 2 else "over 10000",
    )


def published_table(runs: Sequence[ScoredRun], published: PublishedTable) -> Table:
    """Ours beside published numbers: difference with its interval, equivalence test, verdict, every deviation below.

    A column of ours stands beside the published operator of its name, whatever else its recipe changes. Verdicts are
    those of `equivalence` with MARGINS. Where the published HD is a 95th percentile, our HD stands in its own column.

    Raises:
        ProtocolError: the phantom among the runs, runs that must not stand in one table, or none of a published cell.
    """
    for run in runs:
        if run.evaluation.meta.phantom:
            raise ProtocolError(
                f"{run.evaluation.path}: synthetic photographs, on which nothing was published; name runs on real ones"
            )
    evaluations = [run.evaluation for run in runs]
    values = case_values(evaluations)
    by_path = {run.evaluation.path: run for run in runs}
    operators = dict.fromkeys(cell.operator for cell in published.cells)
    holdouts = sorted({cell.holdout for cell in published.cells})
    columns: dict[str, list[ScoredRun]] = {}
    others: dict[str, None] = {}
    for name, evaluation in in_order(evaluations):
        run = by_path[evaluation.path]
        if run.config.model.op in operators and run.config.holdout in holdouts:
            columns.setdefault(name, []).append(run)
        else:
            others[f"{name} on {run.config.holdout}"] = None
    if not columns:
        raise ProtocolError(
            f"{published.name} has {', '.join(operators)} on {', '.join(holdouts)}; "
            f"of these there is no run, but {', '.join(others)}"
        )
    means = values.groupby(["column", "structure", "holdout", "seed"])[list(METRICS)].mean().reset_index()
    if evaluations[0].meta.protocol.hausdorff != "maximum":
        means["hd"] = math.nan  # the protocol's HD is the HD95 of the same row
    rows = [
        _published_row(means, column, cell)
        for cell in published.cells
        for column, own in columns.items()
        if own[0].config.model.op == cell.operator
    ]
    verdicts = [row[-1] for row in rows]
    notes = (
        f"{len(rows)} cells: {', '.join(f'{verdicts.count(one)} {one}' for one in dict.fromkeys(verdicts))}",
        "reproduced: TOST p < 0.05 of a difference within 1 point or 2 pixels; not reproduced: it is not, and the 95 % "
        "interval (Welch) excludes 0; undecided: neither, or fewer than 2 runs; not adjusted for the number of cells",
        *(f"published: {note}" for note in published.notes),
        *deviations(columns, published),
        *(f"not published: {name}" for name in others),
    )
    return Table(f"Measured beside {published.name}, mean ± SD over runs", _LABELS, _COLUMNS, tuple(rows), notes)


_LABELS = ("metric", "structure", "unseen", "operator")
_COLUMNS = ("runs", "ours", "published", "our HD", "difference [95 %]", "TOST p", "verdict")


def _published_row(means: pd.DataFrame, column: str, cell: PublishedCell) -> tuple[str, ...]:
    metric, theirs = METRICS[cell.metric], cell.summary
    name = metric.heading if cell.name.upper() == metric.label.upper() else f"{cell.name} as {metric.label}"
    labels = (name, cell.structure, cell.holdout, column)
    here = (means["column"] == column) & (means["structure"] == cell.structure) & (means["holdout"] == cell.holdout)
    own = means[here].dropna(subset=cell.metric)
    if own.empty:
        return (*labels, "0", "missing", _mean_sd(theirs.mean, theirs.sd), "missing", "-", "-", "missing")
    ours = Summary(*mean_sd(own[cell.metric]), len(own))
    found = equivalence(ours, theirs, margin=MARGINS[metric.unit])
    return (
        *labels,
        str(ours.runs),
        _mean_sd(ours.mean, ours.sd),
        _mean_sd(theirs.mean, theirs.sd),
        _mean_sd(*mean_sd(own["hd"])) if cell.metric == "hd95" and own["hd"].notna().all() else "-",
        _difference(found.difference, found.low, found.high),
        _p(found.p),
        found.verdict,
    )


def _mean_sd(mean: float, sd: float) -> str:
    return f"{mean:.2f}" if math.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"


def _difference(difference: float, low: float, high: float) -> str:
    return f"{difference:+.2f}" if math.isnan(low) else f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def _p(p: float) -> str:
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
