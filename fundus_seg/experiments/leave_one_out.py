"""The leave-one-domain-out experiment: every combination of unseen domain, operator, seed and varied settings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from fundus_seg.config import RunConfig, load_config
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import UsageError, counted
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.experiments.suites import Setup, Suite, setups_of
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import NONE_UNSEEN

_OPTIONS = {"holdout": "--holdouts", "model.op": "--ops", "seed": "--runs and --seed-from"}
"""Settings that a whole experiment takes from options of its own."""


def plan(
    root: DataRoot,
    out: Path,
    *,
    seeds: Sequence[int],
    ops: Sequence[str] = (),
    suite: Suite | None = None,
    holdouts: Sequence[str] | None = None,
    vary: Sequence[str] = (),
    config: str = "paper",
    overrides: Sequence[str] = (),
    probe: bool = False,
    progress: Progress = SILENT,
) -> list[GridRun]:
    """The runs of an experiment, in the order to work on them: seed by seed, so that a first table exists early.

    Args:
        root: where the photographs are.
        out: the folder of all runs.
        seeds: the seeds; each gives one run of every combination.
        ops: the operators, a column each.
        suite: whose columns are taken, in place of those of `ops`.
        holdouts: the unseen domains; None for every domain of the root.
        vary: settings with several values, each written `section.key=value,value,...`. Every combination of them is
            run. Commas within brackets do not separate values.
        config: a preset, or a YAML file that holds what differs from one.
        overrides: settings of every run, each written `section.key=value`.
        probe: whether the holdouts are scored after each epoch.
        progress: told which varied settings have no effect in some runs, which are then one run.

    Raises:
        ConfigError: the YAML file cannot be read, or is wrong.
        UsageError: an operator, a domain or a setting is unknown, a setting is given that the columns of the suite
            differ in, a setting of such a column has no effect in it, or two runs have the same settings.
    """
    if NONE_UNSEEN in (holdouts or ()):
        raise UsageError(
            f"--holdouts {NONE_UNSEEN}: a network of every domain has no unseen one, and no place in this table; "
            "`fundus-seg train --holdout none` makes it"
        )
    setups = suite.setups if suite else setups_of(ops)
    given = [_key(text) for text in (*overrides, *vary)]
    _refuse_own_options(given, "the suite" if suite else _OPTIONS["model.op"])
    if suite and (twice := {*given} & {_key(text) for setup in setups for text in setup.settings}):
        raise UsageError(f"{min(twice)}: the columns of suite {suite.name} differ in it; leave it out")
    variations = list(product(*map(_values, vary)))
    runs = []
    idle: dict[Setup, set[str]] = {}
    for seed, holdout, varied, setup in product(seeds, holdouts or root.domains, variations, setups):
        settings = load_config(
            config,
            overrides=[*overrides, *setup.settings, *varied],
            arguments={"holdout": holdout, "model.op": setup.op, "seed": seed},
        )
        without_effect = settings.training_settings().keys() - settings.effective_settings().keys()
        idle[setup] = idle.get(setup, without_effect) & without_effect
        runs.append(GridRun.of(settings, root, out, probe=probe, label=_label(settings, setup, varied)))
    _refuse_idle(idle)
    once = _each_once(runs, progress)
    _refuse_repetitions(once, named=suite is not None)
    return once


def _key(text: str) -> str:
    """The setting that `key=value` is about."""
    return text.partition("=")[0].strip()


def _label(config: RunConfig, setup: Setup, varied: Sequence[str]) -> str:
    """What tables call a run's column: `tvconv lr=3e-4`, without varied settings that have no effect there."""
    effective = config.effective_settings()
    shown = [text.removeprefix(f"{_key(text).rpartition('.')[0]}.") for text in varied if _key(text) in effective]
    return " ".join([setup.label or config.operator, *shown])


def _values(text: str) -> list[str]:
    """`key=a,[b,c]` as `key=a` and `key=[b,c]`."""
    key, equals, values = text.partition("=")
    if not equals:
        raise UsageError(f"--vary {text}: write it as section.key=value,value")
    if key.strip().startswith("scoring."):
        raise UsageError(f"--vary {text}: a table never mixes scoring protocols; train once, then evaluate --scoring")
    return [f"{key}={value}" for value in re.split(r",(?![^\[]*\])", values)]


def _refuse_own_options(keys: Sequence[str], op: str) -> None:
    """Refuse settings that a whole experiment takes from elsewhere, the operator from `op`."""
    sources = _OPTIONS | {"model.op": op}
    for key in keys:
        if key in sources:
            raise UsageError(f"{key}: a whole experiment takes it from {sources[key]}")


def _refuse_idle(idle: Mapping[Setup, set[str]]) -> None:
    """Refuse a column of a suite with a setting that has no effect in any of its runs, whose name may claim it."""
    for setup, keys in idle.items():
        if found := [text for text in setup.settings if _key(text) in keys]:
            raise UsageError(
                f"column {setup.label}: {found[0]} has no effect beside its operator {setup.op} and other settings; "
                "leave it out"
            )


def _each_once(runs: Sequence[GridRun], progress: Progress) -> list[GridRun]:
    """The runs without those that differ from an earlier one in settings alone that have no effect there."""
    kept: dict[Path, GridRun] = {}
    found: list[GridRun] = []
    idle: set[str] = set()
    for run in runs:
        first = kept.setdefault(run.folder.path, run)
        own, there = run.config.training_settings(), first.config.training_settings()
        differing = {key for key in own if own[key] != there[key]}
        if first is run or not differing or differing & run.config.effective_settings().keys():
            found.append(run)
        idle |= differing
    if dropped := len(runs) - len(found):
        named = ", ".join(sorted(idle))
        progress.line(
            f"{named}: no effect beside the other settings of {counted(dropped, 'run')}, planned once already"
        )
    return found


def _refuse_repetitions(runs: Sequence[GridRun], *, named: bool) -> None:
    """Refuse two runs in one folder: a value was given twice, or a setting varies that does not name the folder.

    Args:
        runs: those of the experiment.
        named: whether the columns have names of their own.
    """
    path, count = Counter(run.folder.path for run in runs).most_common(1)[0]
    if count > 1:
        labels = list(dict.fromkeys(run.label for run in runs if run.folder.path == path))
        if named and len(labels) > 1:
            raise UsageError(
                f"columns {' and '.join(labels)} would be one: they train the same runs, as {path}; leave one out"
            )
        raise UsageError(
            f"{count} runs of this experiment would share the folder {path}: give each holdout, operator and value "
            "once, and vary only settings that make another run (not train.threads, train.precision, "
            "train.channels_last)"
        )
