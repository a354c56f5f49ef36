"""What every table says beside its numbers: how checkpoints were chosen, by which protocol, what was counted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_case import DISTANCES
from fundus_seg.protocol import STRUCTURES, Scoring

PHANTOM_HEADING = "PHANTOM, synthetic photographs, says nothing about patients. "
_SLUG = re.compile(r"-\w+=.*-[0-9a-f]{8}$")
"""Of a run's operator, what `RunConfig.slug` puts behind its name."""
_PENALISED = {"own": "empty prediction", "cup": "empty prediction, of the structure itself or of the cup"}
"""By the protocol's `empty_check`."""


def table_title(title: str, evaluations: Sequence[Evaluation]) -> str:
    """The title with PHANTOM before it where that is what was scored, and after it how checkpoints were chosen."""
    selections = sorted({evaluation.meta.selection for evaluation in evaluations})
    oracle = " (chosen on the scored cases themselves)" if "oracle" in selections else ""
    phantom = PHANTOM_HEADING if evaluations[0].meta.phantom else ""
    return f"{phantom}{title}, selection: {', '.join(selections)}{oracle}"


def counts_and_protocol(
    evaluations: Sequence[Evaluation], cases: pd.DataFrame, metrics: Sequence[str]
) -> tuple[str, ...]:
    """A line for each column with its penalised and excluded cases, then cases left out, then the scoring protocol.

    Args:
        evaluations: what the table is of, by one protocol.
        cases: their values, as `fundus_seg.reporting.tables.case_values` gives them.
        metrics: keys of `METRICS` that the table shows.
    """
    protocol = evaluations[0].meta.protocol
    notes = [f"{column}: {_counts(own)}" for column, own in cases.groupby("column", sort=False)]
    notes += [*recipe_notes(evaluations), *unpredicted_notes(evaluations)]
    shown = [metric for metric in metrics if metric in DISTANCES]
    beyond = int((cases.loc[~cases["penalised"], shown] > protocol.empty_distance).to_numpy().sum())
    if beyond:
        notes.append(f"{beyond} distances above the penalty of {protocol.empty_distance:g}")
    notes.append(
        f"penalised: {_PENALISED[protocol.empty_check]}, distance {protocol.empty_distance:g}; excluded: empty truth; "
        f"{protocol_note(protocol)}"
    )
    return tuple(notes)


def shared_recipe(evaluations: Sequence[Evaluation]) -> str:
    """What the names of all runs' operators end on, `-epochs=10-47b65c81`: where they differ from the preset alike."""
    runs = [evaluation.meta.run.operator for evaluation in evaluations if not evaluation.meta.elsewhere]
    slugs = {found[0] if (found := _SLUG.search(operator)) else "" for operator in runs}
    return slugs.pop() if len(slugs) == 1 else ""


def recipe_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """A line that says how the recipe of all runs differs from the preset, if it does."""
    shared = shared_recipe(evaluations)
    return [f"recipe of all runs, where it differs from the preset: {shared[1:]}"] if shared else []


def unpredicted_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """A line for each that lacks predictions."""
    return [
        f"{meta.run.operator}, {meta.run.holdout}: left out for want of a prediction: {', '.join(meta.unpredicted)}"
        for meta in (evaluation.meta for evaluation in evaluations)
        if meta.unpredicted
    ]


def protocol_note(protocol: Scoring) -> str:
    """The protocol's name, its settings that are not the default, and what sets its photographs apart."""
    seen = ", each photograph seen at its own size" if protocol.inference == "native" else ""
    return f"scoring protocol {protocol.digest()}{_settings(protocol)}{seen}"


def _counts(cases: pd.DataFrame) -> str:
    """`disc 1 penalised, 0 excluded of 51; cup ...`, summed over runs and domains."""
    counts = []
    for structure in STRUCTURES:
        own = cases[cases["structure"] == structure]
        counts.append(f"{structure} {own['penalised'].sum()} penalised, {own['excluded'].sum()} excluded of {len(own)}")
    return "; ".join(counts)


def _settings(protocol: Scoring) -> str:
    """What differs from the default protocol, each setting with its default."""
    default = Scoring().model_dump()
    differing = [
        f"{key} {value} (default {default[key]})"
        for key, value in protocol.model_dump().items()
        if value != default[key]
    ]
    return f", not the default: {', '.join(differing)}" if differing else ""
