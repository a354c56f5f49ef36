"""What tables say beside their numbers: captions of the columns, how checkpoints were chosen, protocol, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from fundus_seg.errors import UsageError, counted
from fundus_seg.evaluation.metric_table import distances
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES, Scoring, warning_of
from fundus_seg.runs.identity import NO_NETWORK, Column

PHANTOM_HEADING = "PHANTOM, synthetic photographs, says nothing about patients. "
_PENALISED = {"own": "empty prediction", "cup": "empty prediction, of the structure itself or of the cup"}
"""What is penalised, by the protocol's `empty_check`."""
SCORE_AGAIN = "remove it, then `fundus-seg evaluate` its run or `fundus-seg score` its masks again"
"""What to do about a case record that is older than a metric."""


def captions(columns: Iterable[Column], labels: Mapping[str, str] | None = None) -> dict[Column, str]:
    """What the columns of one table are called, in their order: `tvconv (bf16) [oracle]`.

    A caption is the operator with its recipe, then the preset, precision and selection where the columns differ in
    them. A recipe that all runs share is left out, since a note says it (`recipe_notes`), and so is that of the only
    floor. Statistics pair and merge scores by these captions, so no two columns have the same one.

    Args:
        columns: those of one table.
        labels: short names that the user gave, by `Column.name`; they stand in place of operator and recipe.

    Raises:
        UsageError: labels by which two columns cannot be told apart.
    """
    ordered = sorted(set(columns))
    shared = shared_recipe(ordered)
    own = [column for column in ordered if not (column.external or column.no_network)]  # of the others no more is known
    floors = [column for column in ordered if column.floor]
    several_presets = len({column.preset for column in own}) > 1
    several_precisions = len({column.precision for column in own}) > 1
    several_selections = len({column.selection for column in ordered if not column.no_network}) > 1
    names = {}
    for column in ordered:
        name = column.operator if column.recipe == shared or floors == [column] else column.name
        if labels:
            name = labels.get(column.name) or name
        if several_presets and column in own:
            name += f" ({column.preset})"
        if several_precisions and column in own:
            name += f" ({column.precision})"
        if several_selections and not column.no_network:
            name += f" [{column.selection}]"
        names[column] = name
    return _told_apart(names)


def _told_apart(names: Mapping[Column, str]) -> dict[Column, str]:
    """The captions, with the operator and recipe behind those that a label has given to several columns."""
    counts = Counter(names.values())
    found = {column: f"{name} ({column.name})" if counts[name] > 1 else name for column, name in names.items()}
    if len(set(found.values())) < len(found):
        twice = Counter(found.values()).most_common(1)[0][0]
        raise UsageError(f"--label: several columns would be called {twice}; give each a label of its own")
    return found


def shared_recipe(columns: Iterable[Column]) -> str:
    """The recipe of all runs among the columns, if it is the same; else an empty text."""
    own = [column for column in columns if not (column.external or column.no_network)]
    recipes = {column.recipe for column in own}
    return recipes.pop() if len(recipes) == 1 and not any(column.searched for column in own) else ""


def table_title(title: str, evaluations: Sequence[Evaluation]) -> str:
    """The title with PHANTOM before it where that is what was scored, and after it how checkpoints were chosen."""
    phantom = PHANTOM_HEADING if evaluations[0].meta.phantom else ""
    return f"{phantom}{title}, {selections_text(evaluations)}"


def selections_text(evaluations: Iterable[Evaluation]) -> str:
    """How checkpoints were chosen, as `chosen_text` says it, and what the protocol warns of.

    `selection: last, oracle (chosen on the scored cases themselves); transductive: ...`
    """
    scores = [each for each in evaluations if not each.meta.column.no_network]
    warnings = sorted({each.meta.protocol.warning for each in scores} - {""})
    return "; ".join([chosen_text(each.meta.column for each in scores), *warnings])


def chosen_text(columns: Iterable[Column]) -> str:
    """How checkpoints were chosen, each way with its own warning: `selection: last, oracle (chosen on ...)`."""
    selections = sorted({column.selection for column in columns})
    warnings = map(warning_of, selections)
    texts = [f"{each} ({warning})" if warning else each for each, warning in zip(selections, warnings, strict=True)]
    return f"selection: {', '.join(texts)}"


def counts_and_protocol(
    evaluations: Sequence[Evaluation], cases: pd.DataFrame, metrics: Sequence[str]
) -> tuple[str, ...]:
    """A line for each column with its penalised and excluded cases, then cases left out, patients and the protocol.

    Args:
        evaluations: what the table is of, by one protocol.
        cases: their values (`frames.case_values`), with the captions of their columns as `column`.
        metrics: keys of `METRICS` that the table shows.
    """
    protocol = evaluations[0].meta.protocol
    notes = [f"{column}: {_counts(own)}" for column, own in cases.groupby("column", sort=False)]
    notes += [*label_notes(evaluations), *recipe_notes(each.meta.column for each in evaluations)]
    notes += unpredicted_notes(evaluations)
    notes += partial_notes(cases)
    notes += lacking_notes(evaluations, metrics)
    notes.append(patients_note(evaluations))
    shown = [metric for metric in metrics if metric in distances()]
    beyond = int((cases.loc[~cases["penalised"], shown] > protocol.empty_distance).to_numpy().sum())
    notes.append("penalised and excluded are counted over the cases of all runs")
    if beyond:
        notes.append(f"{counted(beyond, 'distance')} above the penalty of {protocol.empty_distance:g}")
    notes.append(
        f"penalised: {_PENALISED[protocol.empty_check]}, distance {protocol.empty_distance:g}; excluded: empty truth; "
        f"{protocol_note(protocol)}"
    )
    return tuple(notes)


def patients_note(evaluations: Sequence[Evaluation]) -> str:
    """How many patients stand behind the cases of each domain, as far as any of the evaluations knows.

    `patients: A 51 cases of 34, B not known; intervals and tests take the cases of a patient together ...`
    """
    columns = ["domain", "case", "patient"]
    cases = pd.concat([each.cases.reindex(columns=columns) for each in evaluations])
    known = cases.groupby(["domain", "case"], sort=False)["patient"].first()
    if known.isna().all():
        return "patients: not known, so each case counts as a patient of its own"
    texts = []
    for domain, own in known.groupby("domain", sort=False):
        unknown = int(own.isna().sum())
        text = f"{domain} {counted(len(own) - unknown, 'case')} of {own.nunique()}"
        text = f"{text} and {unknown} of which none is known" if unknown else text
        texts.append(f"{domain} not known" if unknown == len(own) else text)
    rest = ", and a case whose patient is not known as one of its own" if known.isna().any() else ""
    return f"patients: {', '.join(texts)}; intervals and tests take the cases of a patient together{rest}"


def label_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """A line for each label that is no plain operator, with the operator and recipe that it stands for."""
    shared = shared_recipe(each.meta.column for each in evaluations)
    labels = {
        each.label: column.name
        for each, column in ((each, each.meta.column) for each in evaluations)
        if each.label and (each.label, shared) != (column.operator, column.recipe)
    }
    return [f"{label}: {name}" for label, name in labels.items()]


def recipe_notes(columns: Iterable[Column]) -> list[str]:
    """A line that says how the recipe of all runs differs from the preset, if it does."""
    shared = shared_recipe(columns)
    return [f"recipe of all runs, where it differs from the preset: {shared}"] if shared else []


def lacking_notes(evaluations: Sequence[Evaluation], metrics: Sequence[str]) -> list[str]:
    """A line for each metric that some records lack, since they were written before it."""
    notes = []
    for metric in metrics:
        if lacking := [each.path for each in evaluations if metric not in each.cases]:
            notes.append(
                f"{metric}: missing in {counted(len(lacking), 'evaluation')} older than this metric, {lacking[0]} "
                f"first; {SCORE_AGAIN}"
            )
    return notes


def unpredicted_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """A line for each evaluation that lacks predictions."""
    return [
        f"{meta.run.name}, {meta.run.holdout}: left out for want of a prediction: {', '.join(meta.unpredicted)}"
        for meta in (evaluation.meta for evaluation in evaluations)
        if meta.unpredicted
    ]


def partial_notes(cases: pd.DataFrame) -> list[str]:
    """A line for each structure that nobody has annotated in some cases: `cup not annotated: 12 of 50 (A)`.

    Args:
        cases: as in `counts_and_protocol`.
    """
    notes = []
    for structure, own in cases[cases["preset"] != NO_NETWORK].groupby("structure"):
        counts = []
        for domain, cases_there in own.drop_duplicates(["holdout", "case"]).groupby("holdout")["not_annotated"]:
            if cases_there.any():
                counts.append(f"{cases_there.sum()} of {len(cases_there)} ({domain})")
        if counts:
            notes.append(f"{structure} not annotated: {', '.join(counts)}; in no mean of the {structure}")
    return notes


def protocol_note(protocol: Scoring) -> str:
    """The protocol's digest, its settings that are not the default, the size of what was seen, and its warning."""
    seen = ", each photograph seen at its own size" if protocol.inference == "native" else ""
    warning = f"; {protocol.warning}" if protocol.warning else ""
    return f"scoring protocol {protocol.digest()}{_settings(protocol)}{seen}{warning}"


def _counts(cases: pd.DataFrame) -> str:
    """`disc 1 penalised, 0 excluded of 51; cup ...`, summed over runs and domains."""
    counts = []
    for structure in STRUCTURES:
        own = cases[cases["structure"] == structure]
        excluded = (own["excluded"] & ~own["not_annotated"]).sum()
        counts.append(f"{structure} {own['penalised'].sum()} penalised, {excluded} excluded of {len(own)}")
    return "; ".join(counts)


def _settings(protocol: Scoring) -> str:
    """What differs from the default protocol, each setting with its default."""
    default = type(protocol)().model_dump()
    differing = [
        f"{key} {value} (default {default[key]})"
        for key, value in protocol.model_dump().items()
        if value != default[key]
    ]
    return f", not the default: {', '.join(differing)}" if differing else ""
