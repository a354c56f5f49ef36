"""How our runs differ from the experiment that made a published table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fundus_seg.config import load_recipe, load_scoring
from fundus_seg.protocol import DOMAINS
from fundus_seg.reporting.published import PublishedTable
from fundus_seg.reporting.runs import ScoredRun


def deviations(columns: Mapping[str, Sequence[ScoredRun]], published: PublishedTable) -> list[str]:
    """A line for each deviation of data, recipe, scoring and selection.

    Args:
        columns: the runs of each column of our table.
        published: the table that they are compared with.
    """
    runs = [run for column in columns.values() for run in column]
    lines = [f"data: {'; '.join(_photographs(runs))}; not verified to be the published ones"]
    for line, alike in _grouped({column: _recipe(own, published.presets) for column, own in columns.items()}):
        lines.append(f"recipe of {alike}: {line}")
    if not published.presets:
        lines.append("recipe: that of the published table is not known here")
    lines.append(f"scoring: {_scoring(runs[0], published.presets)}")
    for line, alike in _grouped({column: [_choice(own)] for column, own in columns.items()}):
        lines.append(f"selection of {alike}: {line}")
    return lines


def _grouped(lines: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Each line once, with the columns to which it applies."""
    columns: dict[str, list[str]] = {}
    for column, own in lines.items():
        for line in own:
            columns.setdefault(line, []).append(column)
    return [(line, ", ".join(alike)) for line, alike in columns.items()]


def _choice(runs: Sequence[ScoredRun]) -> str:
    """How checkpoints were chosen, and the precision that they were trained in."""
    metas = [run.evaluation.meta for run in runs]
    selections, precisions = {meta.selection for meta in metas}, {meta.run.precision for meta in metas}
    return f"{', '.join(sorted(selections))}; trained in {', '.join(sorted(precisions))}"


def _photographs(runs: Iterable[ScoredRun]) -> list[str]:
    """`A 51 test cases (digest 1a2b3c4d)` for each unseen domain."""
    found: dict[str, str] = {}
    for run in runs:
        holdout, cases = run.config.holdout, run.evaluation.cases
        digest = run.evaluation.meta.data.get(f"{holdout}/test", "unknown")
        found[holdout] = f"{holdout} {cases['case'].nunique()} test cases (digest {digest[:8]})"
    return [found[holdout] for holdout in sorted(found)]


def _recipe(runs: Sequence[ScoredRun], presets: Sequence[str]) -> list[str]:
    """What differs from each preset, the same for all runs of a column."""
    lines = []
    for preset in presets:
        differing: dict[str, str] = {}
        for run in runs:
            config = run.config.model_copy(update={"preset": preset})
            standard = load_recipe(preset).training_settings()
            for key, value in config.differences(all_domains=DOMAINS).items():
                differing[key] = f"{key} {_shown(value)} (there {_shown(standard.get(key, sorted(DOMAINS)))})"
        lines.append(f"as preset {preset}" + (f" but for {', '.join(differing.values())}" if differing else ""))
    return lines


def _scoring(run: ScoredRun, presets: Sequence[str]) -> str:
    """What differs from the last preset, the code that was run; all our settings if the experiment is unknown."""
    ours = run.evaluation.meta.protocol
    if not presets:
        return f"that of the published table is not known here; ours: {_settings(ours.model_dump())}"
    theirs = {**type(ours)().model_dump(), **load_scoring(presets[-1]).model_dump()}
    differing = [
        f"{key} {_shown(value)} (there {_shown(theirs[key])})"
        for key, value in ours.model_dump().items()
        if value != theirs[key]
    ]
    return f"as preset {presets[-1]}" + (f" but for {', '.join(differing)}" if differing else "")


def _settings(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {_shown(value)}" for key, value in values.items())


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "by the data" if value is None else str(value)
