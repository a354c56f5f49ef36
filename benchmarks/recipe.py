"""What each ingredient of a recipe brings on an unseen domain: added to the plain recipe, and left out of the whole.

The plain recipe is EfficientNet-Lite0 from scratch with the rest of the preset `paper`; the whole has every ingredient.
All recipes see as many steps, the same cases at each step, the same holdouts and seeds. Runs go on where they were
stopped. Printed are Dice and differences with 95 % intervals over runs and cases, as Markdown:

    .venv/bin/python benchmarks/recipe.py --data ROOT --out runs/recipe > recipe.md
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fundus_seg.data import open_root
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import counted
from fundus_seg.evaluation import evaluate
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.experiments import choose_executor, plan, run_experiment
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.hardware import machine
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.frames import case_values
from fundus_seg.statistics.intervals import bootstrap_interval

Settings = Mapping[str, str]

EPOCHS = 5
PLAIN: Settings = {
    "model.encoder": "tu-tf_efficientnet_lite0",
    "model.encoder_weights": "none",
    "train.epochs": str(EPOCHS),
    "optim.drop_epochs": "[3]",
}

INGREDIENTS: Mapping[str, Settings] = {
    "ImageNet weights": {"model.encoder_weights": "imagenet"},
    "narrow head": {"model.aspp_channels": "64", "model.expansion": "2"},
    "framing": {"train.augment": "framing"},
    "geometry": {"train.augment": "geometry"},
    "flip": {"train.augment": "flip"},
    "colour": {"train.augment": "colour"},
    "quality": {"train.augment": "quality"},
    "BCE + soft Dice": {"train.loss": "bce-dice"},
    "cosine with warm-up": {"optim.schedule": "cosine", "optim.drop_epochs": "[]", "optim.warmup": "0.5"},
    "weight decay": {"optim.weight_decay": "0.01"},
    "EMA": {"train.average": "ema", "train.ema_decay": "0.98"},
    "renewed norms": {"train.norms": "renewed"},
    "MixStyle": {"train.method": "mixstyle"},
}


def recipes() -> dict[str, Settings]:
    """The settings of every recipe, by its name."""
    alone = {name: mixed(name) for name in INGREDIENTS}
    without = {f"whole without {name}": mixed(*(each for each in INGREDIENTS if each != name)) for name in INGREDIENTS}
    return {"plain": PLAIN, **alone, "whole": mixed(*INGREDIENTS), **without}


def mixed(*names: str) -> Settings:
    """The plain recipe with ingredients; augmentations are joined by `+`."""
    settings = dict(PLAIN)
    for name in names:
        for key, value in INGREDIENTS[name].items():
            before = settings.get(key)
            settings[key] = f"{before}+{value}" if key == "train.augment" and before else value
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data root, every domain of which is held out in turn")
    parser.add_argument("--op", default="depthwise", help="operator")
    parser.add_argument("--runs", type=int, default=3, help="seeds of each recipe and holdout")
    parser.add_argument("--jobs", type=int, help="worker processes")
    parser.add_argument("--size", type=int, default=128, help="training size in pixels")
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of a run, a fifth of them an epoch")
    parser.add_argument("--cases", type=int, default=12, help="cases in a step, of all source domains together")
    parser.add_argument("--only", help="names of recipes, separated by semicolons; all without it")
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"), help="folder of all runs")
    arguments = parser.parse_args()
    root = open_root(arguments.data)
    only = arguments.only.split(";") if arguments.only else recipes()
    planned = {name: _plan(settings, root, arguments) for name, settings in recipes().items() if name in only}
    every = [run for runs in planned.values() for run in runs]
    run_experiment(every, choose_executor("processes", every, jobs=arguments.jobs)).check()
    scores = {name: case_values([_score(run) for run in runs]) for name, runs in planned.items()}
    print(
        f"{machine()}. Operator {arguments.op}, {arguments.steps} steps of {arguments.cases} cases at "
        f"{arguments.size}x{arguments.size}, {counted(arguments.runs, 'seed')}, unseen: {', '.join(root.domains)}.\n"
    )
    print(report(scores))


def _plan(settings: Settings, root: DataRoot, arguments: argparse.Namespace) -> list[GridRun]:
    common = {
        "data.size": arguments.size,
        "train.steps_per_epoch": arguments.steps // EPOCHS,
        "train.batch_per_domain": arguments.cases // (len(root.domains) - 1),
    }
    overrides = [f"{key}={value}" for key, value in {**common, **settings}.items()]
    return plan(root, arguments.out, ops=[arguments.op], seeds=range(arguments.runs), overrides=overrides)


def _score(run: GridRun) -> Evaluation:
    """The scores of the weights that the recipe makes: the average, if it keeps one."""
    checkpoint = "best" if run.config.train.average == "none" else "average"
    return evaluate(run.folder, run.data, checkpoint=checkpoint)


def report(scores: Mapping[str, pd.DataFrame]) -> str:
    """Dice of the plain recipe and the whole, then the differences that each ingredient makes, as Markdown.

    Args:
        scores: the values of cases (`case_values`) of each recipe, by its name.
    """
    lines = ["| recipe | disc | cup | disc: alone | cup: alone | disc: left out | cup: left out |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for name in ("plain", "whole"):
        if name in scores:
            cells = [_interval(_matrices(scores[name], structure)) for structure in STRUCTURES]
            lines.append(f"| {name} | {' | '.join(cells)} | | | | |")
    for name in INGREDIENTS:
        pairs = (name, "plain"), (f"whole without {name}", "whole")
        cells = [_difference(scores, *pair, structure) for pair in pairs for structure in STRUCTURES]
        lines.append(f"| {name} | | | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(scores: Mapping[str, pd.DataFrame], first: str, second: str, structure: str) -> str:
    """First minus second, in points, runs paired by seed and cases by name."""
    if first not in scores or second not in scores:
        return ""
    pairs = zip(_matrices(scores[first], structure), _matrices(scores[second], structure), strict=True)
    return _interval([one - other for one, other in pairs], sign="+")


def _interval(matrices: Sequence[NDArray[np.float64]], sign: str = "") -> str:
    """Mean and interval over holdouts of the same weight."""
    found = bootstrap_interval(*matrices)
    mean = np.mean([matrix.mean() for matrix in matrices])
    return f"{mean:{sign}.1f} [{found.low:{sign}.1f}, {found.high:{sign}.1f}]"


def _matrices(values: pd.DataFrame, structure: str) -> list[NDArray[np.float64]]:
    """Dice in percent of each holdout, seeds x cases; a case without truth is left out."""
    kept = values[(values["structure"] == structure) & ~values["excluded"]]
    return [own.pivot(index="seed", columns="case", values="dsc").to_numpy() for _, own in kept.groupby("holdout")]


if __name__ == "__main__":
    main()
