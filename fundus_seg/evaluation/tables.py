"""Tables in the paper's form, always rebuilt from case records: structure x unseen domain, a column per operator.

A cell is the mean over runs of each run's mean over cases, with the standard deviation (n - 1) over runs. Every run
counts once, every case counts once within its run, and nothing is averaged twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fundus_seg.config import OPERATORS
from fundus_seg.errors import ProtocolError, UsageError, unknown_name
from fundus_seg.evaluation.cases import DISTANCES
from fundus_seg.evaluation.evaluate import Evaluation, EvaluationMeta
from fundus_seg.evaluation.values import scored_values
from fundus_seg.protocol import STRUCTURES
from fundus_seg.table import Table

METRICS = {
    "dsc": "DSC [%]",
    "hd": "HD [px of 800]",
    "hd95": "HD95 [px of 800]",
    "asd": "ASD [px of 800]",
    "assd": "ASSD [px of 800]",
}
DEFAULT_METRICS = ("dsc", "hd", "hd95")
_NAMES = {"disc": "disc (OD)", "cup": "cup (OC)"}
_MEAN = "mean"
_LABELS = ("metric", "structure", "unseen")


def summarise(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Mean of each run: columns column, holdout, structure, seed, then the metrics (DSC in %), then counts.

    A distance that is undefined because the prediction is empty counts as the protocol's `empty_distance`; a case
    whose truth is empty is excluded.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    _refuse_mixtures(evaluations)
    names = _column_names([evaluation.meta for evaluation in evaluations])
    _refuse_repetitions(evaluations, names)
    frames = []
    for evaluation, name in zip(evaluations, names, strict=True):
        cases = evaluation.cases.copy()
        scored = cases["truth_pixels"] > 0
        undefined = scored & cases["hd"].isna()
        for distance in DISTANCES:
            cases.loc[undefined, distance] = evaluation.meta.protocol.empty_distance
        cases["dsc"] *= 100
        cases["cases"], cases["penalised"], cases["excluded"] = 1, undefined, ~scored
        by_structure = cases.groupby("structure")
        means = by_structure[list(METRICS)].mean()
        counts = by_structure[["cases", "penalised", "excluded"]].sum()
        run = evaluation.meta.run
        frames.append(means.join(counts).reset_index().assign(column=name, holdout=run.holdout, seed=run.seed))
    return pd.concat(frames, ignore_index=True)


def case_values(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """The values that tables, plots and tests are made of, in the units of `METRICS`: a row a run, case and structure.

    Columns: column (of the table), holdout, seed, structure, case, the metrics, and the flags penalised and excluded.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    _refuse_mixtures(evaluations)
    ordered = in_order(evaluations)
    _refuse_repetitions([evaluation for _, evaluation in ordered], [name for name, _ in ordered])
    frames = []
    for name, evaluation in ordered:
        run = evaluation.meta.run
        frames.append(scored_values(evaluation).assign(column=name, holdout=run.holdout, seed=run.seed))
    return pd.concat(frames, ignore_index=True)


def in_order(evaluations: Sequence[Evaluation]) -> list[tuple[str, Evaluation]]:
    """Evaluations in the order of the table's columns, each under the name of its column."""
    names = _column_names([evaluation.meta for evaluation in evaluations])
    return sorted(zip(names, evaluations, strict=True), key=lambda each: _operator_order(each[0]))


def build_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Table:
    """The table of some evaluations: a column per operator, told apart by recipe and selection where they differ.

    Its title says what was scored, how checkpoints were chosen, and PHANTOM where it is one; its notes count penalised
    and excluded cases and name the protocol.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
        UsageError: an unknown metric.
    """
    check_metrics(metrics)
    runs = summarise(evaluations)
    columns = tuple(dict.fromkeys(sorted(runs["column"], key=_operator_order)))
    holdouts = sorted(runs["holdout"].unique())
    rows: list[tuple[str, ...]] = []
    for metric in metrics:
        cells = {
            (structure, holdout): [_over_runs(runs, column, structure, holdout, metric) for column in columns]
            for structure in STRUCTURES
            for holdout in holdouts
        }
        for (structure, holdout), values in cells.items():
            rows.append((METRICS[metric], _NAMES[structure], holdout, *map(_mean_sd, values)))
        by_column = zip(*cells.values(), strict=True)
        rows.append((METRICS[metric], _MEAN, ", ".join(holdouts), *map(_mean_of_cells, by_column)))
    return Table(_title(evaluations, runs), _LABELS, columns, tuple(rows), _notes(evaluations, runs, columns))


def tables(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> list[Table]:
    """The table of patients, and that of the phantom apart from it.

    Raises:
        ProtocolError, UsageError: as `build_table`.
    """
    kinds = [[each for each in evaluations if each.meta.phantom is phantom] for phantom in (False, True)]
    return [build_table(kind, metrics) for kind in kinds if kind]


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise UsageError for a metric that no table has."""
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(unknown_name("metric", metric, METRICS))


def _refuse_mixtures(evaluations: Sequence[Evaluation]) -> None:
    """One protocol, one set of photographs per unseen domain, and never the phantom beside patients."""
    first_with: dict[str, tuple[Any, Evaluation]] = {}
    for evaluation in evaluations:
        meta = evaluation.meta
        traits = {"kinds of photographs": "synthetic" if meta.phantom else "real"}
        traits |= {f"scoring protocols ({key})": value for key, value in meta.protocol.model_dump().items()}
        traits["scoring protocols"] = meta.protocol_digest
        traits |= {f"sets of photographs ({where})": digest for where, digest in meta.data.items()}
        for trait, value in traits.items():
            known, other = first_with.setdefault(trait, (value, evaluation))
            if known != value:
                raise ProtocolError(
                    f"two {trait} in one table: {known} in {other.path}, {value} in {evaluation.path}; "
                    "evaluate them apart, or by one protocol with --scoring and --inference"
                )


def _refuse_repetitions(evaluations: Sequence[Evaluation], names: Sequence[str]) -> None:
    """A run counts once: its copy in another folder is no second run."""
    first_of: dict[tuple[str, str, int], Evaluation] = {}
    for evaluation, name in zip(evaluations, names, strict=True):
        run = evaluation.meta.run
        other = first_of.setdefault((name, run.holdout, run.seed), evaluation)
        if other is not evaluation:
            raise ProtocolError(
                f"{name}, holdout {run.holdout}, seed {run.seed} stands twice: {other.path} and {evaluation.path}; "
                "leave one out"
            )


def _column_names(metas: Sequence[EvaluationMeta]) -> list[str]:
    """The operator, then whatever else tells the evaluations apart."""
    presets, precisions = ({getattr(meta.run, key) for meta in metas} for key in ("preset", "precision"))
    selections = {meta.selection for meta in metas}
    return [
        meta.run.operator
        + (f" ({meta.run.preset})" if len(presets) > 1 else "")
        + (f" ({meta.run.precision})" if len(precisions) > 1 else "")
        + (f" [{meta.selection}]" if len(selections) > 1 else "")
        for meta in metas
    ]


def _operator_order(column: str) -> tuple[int, str]:
    """OPERATORS first, in their order; of two names that fit, `depthwise` and `depthwise-wide`, the longer."""
    fitting = [name for name in OPERATORS if f"{column} ".startswith((f"{name} ", f"{name}-"))]
    return (OPERATORS.index(max(fitting, key=len)) if fitting else len(OPERATORS), column)


def _over_runs(runs: pd.DataFrame, column: str, structure: str, holdout: str, metric: str) -> list[float]:
    """The value of each run of one cell; a run without a defined one is left out."""
    here = (runs["column"] == column) & (runs["structure"] == structure) & (runs["holdout"] == holdout)
    return [float(value) for value in runs.loc[here, metric].dropna()]


def _mean_sd(values: Sequence[float]) -> str:
    """`87.31 ± 0.52`; the mean alone for one run; `missing` where no run stands."""
    if not values:
        return "missing"
    mean = f"{np.mean(values):.2f}"
    return f"{mean} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else mean


def _mean_of_cells(cells: Sequence[Sequence[float]]) -> str:
    """The mean of a column's cells, if none is missing."""
    return f"{np.mean([np.mean(cell) for cell in cells]):.2f}" if all(cells) else "missing"


def _title(evaluations: Sequence[Evaluation], runs: pd.DataFrame) -> str:
    metas = [evaluation.meta for evaluation in evaluations]
    selections = sorted({meta.selection for meta in metas})
    counts = runs.groupby(["column", "structure", "holdout"]).size()
    least, most = int(counts.min()), int(counts.max())
    number = f"{most}" if least == most else f"{least} to {most}"
    title = f"Unseen domains, {number} run{'s' * (most > 1)} a cell, selection: {', '.join(selections)}"
    if "oracle" in selections:
        title += " (chosen on the scored cases themselves)"
    return f"PHANTOM, synthetic photographs, says nothing about patients. {title}" if metas[0].phantom else title


def _notes(evaluations: Sequence[Evaluation], runs: pd.DataFrame, columns: Sequence[str]) -> tuple[str, ...]:
    protocol = evaluations[0].meta.protocol
    notes = []
    for column in columns:
        counts = []
        for structure in STRUCTURES:
            own = runs[(runs["column"] == column) & (runs["structure"] == structure)]
            penalised, excluded, cases = (int(own[count].sum()) for count in ("penalised", "excluded", "cases"))
            counts.append(f"{structure} {penalised} penalised, {excluded} excluded of {cases}")
        notes.append(f"{column}: {'; '.join(counts)}")
    notes.append(
        f"penalised: empty prediction, distance {protocol.empty_distance:g}; excluded: empty truth; "
        f"scoring protocol {protocol.digest()}"
        + (", each photograph seen at its own size" if protocol.inference == "native" else "")
    )
    return tuple(notes)
