"""Tables in the paper's form, always rebuilt from case records: structure x unseen domain, a column per operator.

A cell is the mean over runs of each run's mean over cases, with the standard deviation (n - 1) over runs. Every run
counts once, every case counts once within its run, and nothing is averaged twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from fundus_seg.builtins import OPERATORS
from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.notes import counts_and_protocol, shared_recipe, table_title
from fundus_seg.reporting.numbers import data_text, mean_interval_text, mean_sd_text
from fundus_seg.reporting.table import Table
from fundus_seg.statistics.intervals import MINIMAL_RUNS, Interval, bootstrap_interval, mean_sd
from fundus_seg.statistics.ties import BOLD, best_columns

_SHORT = {"disc": "OD", "cup": "OC"}
_NAMES = {structure: f"{structure} ({short})" for structure, short in _SHORT.items()}
_MEAN = "mean"
_LABELS = ("metric", "structure", "unseen")
_TIDY = ("metric", "unit", "structure", "holdout", "operator", "mean", "sd", "runs", "low", "high", "over")
"""As published tables are shipped, with the unit besides, and the 95 % interval with what it was resampled over."""
_BRACKETS = (
    f"in brackets, for fewer than {MINIMAL_RUNS} runs: 95 % interval over cases, of these networks alone; says nothing "
    "about other seeds"
)


def case_values(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """The values that tables, plots and tests are made of, in the units of `METRICS`: a row a run, case and structure.

    Columns: column (of the table), holdout, seed, structure, case, the metrics, and the flags penalised and excluded.
    A distance that is undefined because the prediction is empty counts as the protocol's `empty_distance`; a case
    whose truth is empty is excluded: NaN. Rows stand in the order of the table's columns.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    check_one_table(evaluations)
    return joined(evaluations, scored_values)


def joined(evaluations: Sequence[Evaluation], of_cases: Callable[[Evaluation], pd.DataFrame]) -> pd.DataFrame:
    """The frames of all in the order of the table's columns, each row with its column, holdout and seed."""
    frames = []
    for column, evaluation in in_order(evaluations):
        run = evaluation.meta.run
        frames.append(of_cases(evaluation).assign(column=column, holdout=run.holdout, seed=run.seed))
    return pd.concat(frames, ignore_index=True)


def summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean of each run: columns column, holdout, structure, seed, then the metrics, then counts.

    Args:
        cases: as `case_values` gives them.
    """
    by_run = cases.assign(cases=1).groupby(["column", "holdout", "structure", "seed"], sort=False)
    return by_run[list(METRICS)].mean().join(by_run[["cases", "penalised", "excluded"]].sum()).reset_index()


def build_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Table:
    """The table of some evaluations: a column per operator, told apart by recipe and selection where they differ.

    Its title says what was scored, how checkpoints were chosen, and PHANTOM where it is one; its notes count penalised
    and excluded cases, name the protocol and say what bold means. A cell of fewer than MINIMAL_RUNS runs has an
    interval over cases in place of the SD. A column's mean is given where none of its cells is missing.

    Args:
        evaluations: at least one.
        metrics: keys of `METRICS`.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
        UsageError: an unknown metric.
    """
    check_metrics(metrics)
    cases = case_values(evaluations)
    runs = summarise(cases)
    columns, holdouts = tuple(runs["column"].unique()), sorted(runs["holdout"].unique())
    rows: list[tuple[str, ...]] = []
    bold: set[tuple[int, int]] = set()
    tests: set[str] = set()

    def add(metric: str, structure: str | None, holdout: str | None, values: Sequence[str]) -> None:
        best = best_columns(cases, metric, structure, holdout, higher_is_better=METRICS[metric].higher_is_better)
        bold.update((len(rows), number) for number, column in enumerate(columns) if column in best.columns)
        tests.update(best.tests)
        where = (_NAMES[structure] if structure else _MEAN, holdout or ", ".join(holdouts))
        rows.append((METRICS[metric].heading, *where, *values))

    for metric in metrics:
        cells = {
            (structure, holdout): [
                cell_values(runs, metric, column=column, structure=structure, holdout=holdout) for column in columns
            ]
            for structure in STRUCTURES
            for holdout in holdouts
        }
        for where, values in cells.items():
            texts = [
                _cell_text(value, cases, column, *where, metric) for column, value in zip(columns, values, strict=True)
            ]
            add(metric, *where, texts)
        add(metric, None, None, [cells_text(column) for column in zip(*cells.values(), strict=True)])
    notes = [*counts_and_protocol(evaluations, cases, metrics)]
    if runs.groupby(["column", "structure", "holdout"]).size().min() < MINIMAL_RUNS:
        notes.append(_BRACKETS)
    if bold:
        notes.append("; ".join([BOLD, *sorted(tests)]))
    return Table(title_of(evaluations), _LABELS, columns, tuple(rows), tuple(notes), frozenset(bold))


def build_tidy_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Table:
    """The same cells for a program to read: a row a cell, mean, SD and 95 % interval apart, NA where there is none.

    The interval is over runs and cases, of fewer than MINIMAL_RUNS runs over cases alone; `over` says which.

    Raises:
        ProtocolError, UsageError: as `build_table`.
    """
    check_metrics(metrics)
    cases = case_values(evaluations)
    runs = summarise(cases)
    columns, holdouts = tuple(runs["column"].unique()), sorted(runs["holdout"].unique())
    rows = []
    for metric, structure, holdout, column in product(metrics, STRUCTURES, holdouts, columns):
        values = cell_values(runs, metric, column=column, structure=structure, holdout=holdout)
        interval = _interval(cases, column, structure, holdout, metric) if values else None
        ends = (interval.low, interval.high) if interval else (None, None)
        rows.append(
            (
                *(METRICS[metric].label, METRICS[metric].unit, _SHORT[structure], holdout, column),
                *map(data_text, mean_sd(values)),
                str(len(values)),
                *map(data_text, ends),
                interval.over if interval else "NA",
            )
        )
    notes = counts_and_protocol(evaluations, cases, metrics)
    return Table(title_of(evaluations), _TIDY[:5], _TIDY[5:], tuple(rows), notes)


def tables(
    evaluations: Sequence[Evaluation],
    metrics: Sequence[str] = DEFAULT_METRICS,
    build: Callable[[Sequence[Evaluation], Sequence[str]], Table] = build_table,
) -> list[Table]:
    """The table of patients, and that of the phantom apart from it.

    Raises:
        ProtocolError, UsageError: as `build_table`.
    """
    return [build(kind, metrics) for kind in apart(evaluations)]


def apart(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Those of patients, then those of the phantom; a kind without any is left out."""
    kinds = [[each for each in evaluations if each.meta.phantom is phantom] for phantom in (False, True)]
    return [kind for kind in kinds if kind]


def check_one_table(evaluations: Sequence[Evaluation]) -> None:
    """Raise ProtocolError for evaluations that must not stand in one table."""
    _refuse_mixtures(evaluations)
    _refuse_repetitions(evaluations)


def _refuse_mixtures(evaluations: Sequence[Evaluation]) -> None:
    """One protocol, photographs per unseen domain, file per plugin and operator; never the phantom beside patients."""
    first_with: dict[str, tuple[Any, Evaluation]] = {}
    for evaluation in evaluations:
        meta = evaluation.meta
        traits = {"kinds of photographs": "synthetic" if meta.phantom else "real"}
        traits["kinds of cases"] = meta.scored
        traits |= {f"scoring protocols ({key})": value for key, value in meta.protocol.model_dump().items()}
        traits["scoring protocols"] = meta.protocol_digest
        traits |= {f"sets of photographs ({where})": digest for where, digest in meta.data.items()}
        if meta.truth_digest:
            traits[f"sets of true masks ({meta.run.holdout})"] = meta.truth_digest
        traits |= {f"files of {setting} ({meta.run.operator})": digest for setting, digest in meta.code.items()}
        for trait, value in traits.items():
            known, other = first_with.setdefault(trait, (value, evaluation))
            if known != value:
                raise ProtocolError(
                    f"two {trait} in one table: {known} in {other.path}, {value} in {evaluation.path}; "
                    "evaluate them apart, or by one protocol with --scoring and --inference"
                )


def _refuse_repetitions(evaluations: Sequence[Evaluation]) -> None:
    """A run counts once: its copy in another folder is no second run."""
    first_of: dict[tuple[str, str, int], Evaluation] = {}
    for name, evaluation in in_order(evaluations):
        run = evaluation.meta.run
        other = first_of.setdefault((name, run.holdout, run.seed), evaluation)
        if other is not evaluation:
            raise ProtocolError(
                f"{name}, holdout {run.holdout}, seed {run.seed} stands twice: {other.path} and {evaluation.path}; "
                "leave one out"
            )


def in_order(evaluations: Sequence[Evaluation]) -> list[tuple[str, Evaluation]]:
    """Evaluations in the order of the table's columns, each under the name of its column.

    That is the operator, then whatever else tells the evaluations apart; what all runs' recipes share is a note's.
    """
    metas = [evaluation.meta for evaluation in evaluations]
    shared = shared_recipe(evaluations)
    own = [meta.run for meta in metas if not meta.elsewhere]  # of a tool elsewhere no more is known
    presets, precisions = ({getattr(run, key) for run in own} for key in ("preset", "precision"))
    selections = {meta.selection for meta in metas}
    names = [
        (meta.run.operator if meta.elsewhere else meta.run.operator.removesuffix(shared))
        + (f" ({meta.run.preset})" if len(presets) > 1 and not meta.elsewhere else "")
        + (f" ({meta.run.precision})" if len(precisions) > 1 and not meta.elsewhere else "")
        + (f" [{meta.selection}]" if len(selections) > 1 else "")
        for meta in metas
    ]
    return sorted(zip(names, evaluations, strict=True), key=lambda named: _column_order(named[0]))


def _column_order(column: str) -> tuple[int, str]:
    """Sort key of a column: OPERATORS first, in their order.

    Of two names that fit, `depthwise` and `depthwise-wide`, the longer.
    """
    fitting = [name for name in OPERATORS if f"{column} ".startswith((f"{name} ", f"{name}-"))]
    return (list(OPERATORS).index(max(fitting, key=len)) if fitting else len(OPERATORS), column)


def cell_values(values: pd.DataFrame, name: str, **cell: str) -> list[float]:
    """The defined values of one cell.

    Args:
        values: a row a run, or a run and case.
        name: its column with the values.
        cell: what other columns must hold, as column="tvconv", holdout="A".
    """
    here = (values[list(cell)] == pd.Series(cell)).all(axis="columns")
    return [float(value) for value in values.loc[here, name].dropna()]


def _interval(cases: pd.DataFrame, column: str, structure: str, holdout: str, metric: str) -> Interval:
    """Of one cell's mean, from the cases that every run has a value of."""
    here = cases[(cases["column"] == column) & (cases["structure"] == structure) & (cases["holdout"] == holdout)]
    return bootstrap_interval(here.pivot(index="seed", columns="case", values=metric).dropna(axis="columns"))


def _cell_text(
    values: Sequence[float], cases: pd.DataFrame, column: str, structure: str, holdout: str, metric: str
) -> str:
    """`87.31 ± 0.52`; `87.31 [85.0, 89.2]` of fewer than MINIMAL_RUNS runs; `missing` where no run stands."""
    mean, sd = mean_sd(values)
    if not 0 < len(values) < MINIMAL_RUNS:
        return mean_sd_text(mean, sd)
    interval = _interval(cases, column, structure, holdout, metric)
    return mean_interval_text(mean, interval.low, interval.high)


def runs_text(values: Sequence[float], digits: int = 2) -> str:
    """`87.31 ± 0.52`; the mean alone for one run; `missing` where no run stands."""
    return mean_sd_text(*mean_sd(values), digits)


def cells_text(cells: Sequence[Sequence[float]], digits: int = 2) -> str:
    """The mean of a column's cells, if none is missing."""
    return mean_sd_text(float(np.mean([mean_sd(cell)[0] for cell in cells])), digits=digits)


def title_of(evaluations: Sequence[Evaluation], what: str = "Unseen domains") -> str:
    """What was scored, how often, how checkpoints were chosen, and PHANTOM first where it is one."""
    counts = Counter((name, evaluation.meta.run.holdout) for name, evaluation in in_order(evaluations)).values()
    least, most = min(counts), max(counts)
    number = f"{most}" if least == most else f"{least} to {most}"
    return table_title(f"{what}, {number} run{'s' * (most > 1)} a cell", evaluations)
