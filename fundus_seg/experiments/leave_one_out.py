"""The leave-one-domain-out experiment: every unseen domain with every operator, seed and varied setting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from fundus_seg.config import load_config
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import UsageError
from fundus_seg.experiments.grid_run import Cell

_OPTIONS = {"holdout": "--holdouts", "model.op": "--ops", "seed": "--runs and --seed-from"}
"""Settings that the grid has options of its own for."""


def plan(
    root: DataRoot,
    out: Path,
    *,
    ops: Sequence[str],
    seeds: Sequence[int],
    holdouts: Sequence[str] | None = None,
    vary: Sequence[str] = (),
    config: str = "paper",
    overrides: Sequence[str] = (),
    probe: bool = False,
) -> list[Cell]:
    """The cells of a grid, in the order to work on them: all of the first seed first, so that a table exists early.

    Args:
        root: where the photographs are.
        out: folder of all runs.
        ops: operators.
        seeds: of the runs.
        holdouts: unseen domains; None for every domain of the root.
        vary: `section.key=value,value,...` each; all their combinations are run. Commas within brackets part no values.
        config: a preset, or a YAML file of what differs from one.
        overrides: `section.key=value`, of every cell.
        probe: whether the holdouts are scored after each epoch.

    Raises:
        ConfigError: the YAML file cannot be read, or is wrong.
        UsageError: an unknown operator, domain or setting; settings that do not tell the runs apart.
    """
    _refuse_own_options([text.partition("=")[0].strip() for text in (*overrides, *vary)])
    variations = list(product(*map(_values, vary)))
    cells = [
        Cell.of(
            load_config(
                config,
                overrides=[*overrides, *varied],
                arguments={"holdout": holdout, "model.op": op, "seed": seed},
            ),
            root,
            out,
            probe=probe,
        )
        for seed, holdout, varied, op in product(seeds, holdouts or root.domains, variations, ops)
    ]
    _refuse_repetitions(cells)
    return cells


def _values(text: str) -> list[str]:
    """`key=a,[b,c]` as `key=a` and `key=[b,c]`."""
    key, equals, values = text.partition("=")
    if not equals:
        raise UsageError(f"--vary {text}: write it as section.key=value,value")
    if key.strip().startswith("scoring."):
        raise UsageError(f"--vary {text}: a table never mixes scoring protocols; train once, then evaluate --scoring")
    return [f"{key}={value}" for value in re.split(r",(?![^\[]*\])", values)]


def _refuse_own_options(keys: Sequence[str]) -> None:
    for key in keys:
        if key in _OPTIONS:
            raise UsageError(f"{key}: a grid takes it from {_OPTIONS[key]}")


def _refuse_repetitions(cells: Sequence[Cell]) -> None:
    """Two cells of one folder: a value given twice, or a setting that no folder is named by, such as train.threads."""
    path, count = Counter(cell.folder.path for cell in cells).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"{count} cells of this grid would be the one run {path}: give each holdout, operator and value once, "
            "and vary only what makes another run (train.threads, train.precision and train.channels_last do not)"
        )
