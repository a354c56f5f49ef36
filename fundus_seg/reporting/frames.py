"""From evaluations to the data frames that tables, plots and tests are made of, and what must not stand in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from fundus_seg.errors import ProtocolError, UsageError, counted, unknown_name
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation, Scored
from fundus_seg.protocol import Combination
from fundus_seg.reporting.notes import captions
from fundus_seg.runs.identity import COLUMN_FIELDS, Column, check_free

RUN_FIELDS = (*COLUMN_FIELDS, "holdout", "seed")
"""The columns that say which run, and which of its checkpoints, a row of a frame is of."""


def case_values(evaluations: Sequence[Evaluation], scored: Scored = "holdout") -> pd.DataFrame:
    """The values that tables, plots and tests are made of, in the units of `METRICS`.

    One row per run, case and structure.

    Columns: RUN_FIELDS, structure, case, patient, the metrics, and the flags penalised and excluded. A distance that is
    undefined because the prediction is empty counts as the protocol's `empty_distance`; a case whose truth is empty is
    excluded: NaN. The patient is what any of the evaluations knows (masks of other tools have none), else the case
    itself. Rows stand in the order of the table's columns.

    Raises:
        ProtocolError: evaluations that must not stand in one table, or other cases than `scored`.
    """
    check_one_table(evaluations, scored)
    values = joined(evaluations, scored_values)
    known = values.groupby(["holdout", "case"])["patient"].transform("first")
    return values.assign(patient=known.astype(values["case"].dtype).fillna(values["case"]))


def joined(evaluations: Sequence[Evaluation], of_cases: Callable[[Evaluation], pd.DataFrame]) -> pd.DataFrame:
    """The frames of all evaluations in the order of the table's columns, RUN_FIELDS before each row."""
    ordered = in_order(evaluations)
    frames = [of_cases(evaluation) for evaluation in ordered]
    runs = pd.DataFrame([_run_fields(evaluation) for evaluation in ordered], columns=list(RUN_FIELDS))
    repeated = runs.loc[runs.index.repeat([len(frame) for frame in frames])]
    return pd.concat([repeated.reset_index(drop=True), pd.concat(frames, ignore_index=True)], axis=1)


def _run_fields(evaluation: Evaluation) -> dict[str, Any]:
    run = evaluation.meta.run
    return {**asdict(evaluation.meta.column), "holdout": run.holdout, "seed": run.seed}


def summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean of each run: RUN_FIELDS and structure, then the metrics, then counts.

    Args:
        cases: as `case_values` gives them.
    """
    by_run = cases.assign(cases=1).groupby([*RUN_FIELDS, "structure"], sort=False)
    return by_run[list(METRICS)].mean().join(by_run[["cases", "penalised", "excluded"]].sum()).reset_index()


def in_order(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations in the order of a table's columns."""
    return sorted(evaluations, key=lambda evaluation: evaluation.meta.column)


def captions_of(evaluations: Sequence[Evaluation], columns: Iterable[Column] | None = None) -> dict[Column, str]:
    """The columns that the evaluations have in one table, in order, with their captions.

    Behind that of an ensemble stands of how many networks it is: `tvconv, mean of 3`.

    Args:
        evaluations: those of one table.
        columns: the columns of the table, where they are not just those of the evaluations.
    """
    own = (evaluation.meta.column for evaluation in evaluations) if columns is None else columns
    names = captions(own, labels_of(evaluations))
    sizes: dict[Column, set[int]] = {column: set() for column in names}
    for meta in (evaluation.meta for evaluation in evaluations):
        if meta.members and meta.column in sizes:
            sizes[meta.column].add(len(meta.members))
    return {
        column: f"{name}, mean of {' or '.join(map(str, sorted(sizes[column])))}" if sizes[column] else name
        for column, name in names.items()
    }


def labels_of(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """The labels that the user gave, by `Column.name`."""
    return {evaluation.meta.column.name: evaluation.label for evaluation in evaluations if evaluation.label}


def with_labels(evaluations: Sequence[Evaluation], labels: Mapping[str, str]) -> list[Evaluation]:
    """The evaluations with short names for the columns that they stand in.

    Args:
        evaluations: all of one command.
        labels: new names by old ones, which are a label that a column has already, an operator with its recipe, or an
            operator that has one recipe.

    Raises:
        UsageError: an old name that no column has, or a new one that another column has, or that reads like the floor's
            or the ceiling's, which keep their names.
    """
    names = {each.meta.column.name: each.meta.column.operator for each in evaluations}
    given = labels_of(evaluations)
    chosen: dict[str, str] = {}
    for old, new in labels.items():
        for name in (old, new):
            check_free(name, f"--label {old}={new} cannot give or take that name")
        own = [name for name, label in given.items() if label == old]
        own = own or [name for name, operator in names.items() if old == operator]
        fitting = [old] if old in names else own
        if len(fitting) != 1:
            raise UsageError(f"--label {old}={new}: {unknown_name('column', old, [*names, *given.values()])}")
        chosen[fitting[0]] = new
    chosen = given | chosen
    headings = Counter(chosen.get(name, name) for name in names)
    if twice := [heading for heading, count in headings.items() if count > 1]:
        raise UsageError(f"--label: several columns would be called {twice[0]}")
    return [replace(each, label=chosen.get(each.meta.column.name, "")) for each in evaluations]


def labelled(frame: pd.DataFrame, names: Mapping[Column, str]) -> pd.DataFrame:
    """The frame with a further column, `column`: the label under which statistics and plots tell operators apart.

    Args:
        frame: with COLUMN_FIELDS.
        names: the label of each column, its caption; no two columns have the same (`captions`).
    """
    rows = frame[list(COLUMN_FIELDS)].itertuples(index=False, name=None)
    return frame.assign(column=[names[Column(*fields)] for fields in rows])


def by_kind(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """The evaluations of patients, then those of the phantom; a kind without any is left out."""
    kinds = [[each for each in evaluations if each.meta.phantom is phantom] for phantom in (False, True)]
    return [kind for kind in kinds if kind]


def check_one_table(evaluations: Sequence[Evaluation], scored: Scored = "holdout") -> None:
    """Raise ProtocolError for evaluations that must not stand in one table, or of other cases than `scored`."""
    _refuse_mixtures(evaluations)
    for evaluation in evaluations:
        if evaluation.meta.scored != scored:
            raise ProtocolError(
                f"{evaluation.path}: of {evaluation.meta.scored} cases, in a table of {scored} cases; leave it out"
            )
    _refuse_repetitions(evaluations)


def _refuse_mixtures(evaluations: Sequence[Evaluation]) -> None:
    """One protocol, photographs of each domain, and files of plugins and starting weights of a column's runs.

    The phantom never stands beside patients.
    """
    first_with: dict[str, tuple[Any, Evaluation]] = {}
    for evaluation in evaluations:
        for trait, value in _traits(evaluation).items():
            known, other = first_with.setdefault(trait, (value, evaluation))
            if known != value:
                raise ProtocolError(
                    f"two {trait} in one table: {known} in {other.path}, {value} in {evaluation.path}; "
                    f"{_remedy(trait, (other, evaluation))}"
                )


def _remedy(trait: str, evaluations: Sequence[Evaluation]) -> str:
    """What the user can do about two evaluations that differ in a trait."""
    if trait.startswith("scoring protocols"):
        return "take one protocol for all, with --scoring, --ensemble, --views, --inference and --adapt-batch-norms"
    if trait.startswith("sets of true masks"):
        for each in evaluations:
            if each.meta.unpredicted:
                lacking = counted(len(each.meta.unpredicted), "case")
                return (
                    f"{each.path} lacks the predictions of {lacking}: `fundus-seg score --missing empty` counts them "
                    "as missed"
                )
        return "score both with the same --truth, or leave one out"
    return "make a table of each"


def _traits(evaluation: Evaluation) -> dict[str, Any]:
    """What evaluations of one table must have in common: by the words that an error uses for it, in the plural."""
    meta = evaluation.meta
    traits: dict[str, Any] = {"kinds of photographs": "synthetic" if meta.phantom else "real"}
    traits["kinds of cases"] = meta.scored
    protocol = {**Combination().model_dump(), **meta.protocol.model_dump()}
    traits |= {f"scoring protocols ({key})": value for key, value in protocol.items()}
    traits["scoring protocols"] = meta.protocol_digest
    traits |= {f"sets of photographs ({where})": digest for where, digest in meta.data.items()}
    domains = sorted({where.split("/")[0] for where in meta.data})
    if len(domains) > 1:  # sources and holdout: those of the whole experiment
        traits[f"sets of domains ({meta.run.name})"] = ", ".join(domains)
    if meta.truth_digest:
        traits[f"sets of true masks ({meta.run.holdout})"] = meta.truth_digest
    return traits | {f"files of {setting} ({meta.run.name})": digest for setting, digest in meta.code.items()}


def _refuse_repetitions(evaluations: Sequence[Evaluation]) -> None:
    """A run counts once: its copy in another folder is no second run."""
    names = captions_of(evaluations)
    first_of: dict[tuple[Column, str, int], Evaluation] = {}
    for evaluation in in_order(evaluations):
        column, run = evaluation.meta.column, evaluation.meta.run
        other = first_of.setdefault((column, run.holdout, run.seed), evaluation)
        if other is not evaluation:
            raise ProtocolError(
                f"{names[column]}, holdout {run.holdout}, seed {run.seed} stands twice: {other.path} and "
                f"{evaluation.path}; leave one out"
            )
