"""What each ingredient of a recipe brings on an unseen domain: in a plain recipe, and in the whole.

The plain recipe is the preset `paper` on EfficientNet-Lite0 with ImageNet weights and a narrow head; the whole has
every ingredient. Each gain is that of a recipe with the ingredient over the same recipe without it. All recipes see as
many steps, the same cases at each step, the same holdouts and seeds. Runs go on where they were stopped. Printed are
Dice and gains with 95 % intervals over runs and cases, as Markdown:

    .venv/bin/python benchmarks/recipe.py --data ROOT --out runs/recipe > recipe.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fundus_seg.data import open_root
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import counted
from fundus_seg.evaluation import evaluate
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.experiments import choose_executor, plan, run_experiment
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.hardware import machine
from fundus_seg.models import build_model
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.frames import case_values
from fundus_seg.statistics.intervals import bootstrap_interval
from timing import side_by_side

Settings = Mapping[str, str]

EPOCHS = 5
_ROUNDS = 15
BARE: Settings = {
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
    "colour and quality": {"train.augment": "colour+quality"},
    "BCE + soft Dice": {"train.loss": "bce-dice"},
    "cosine with warm-up": {"optim.schedule": "cosine", "optim.drop_epochs": "[]", "optim.warmup": "0.5"},
    "weight decay": {"optim.weight_decay": "0.01"},
    "EMA": {"train.average": "ema", "train.ema_decay": "0.98"},
    "renewed norms": {"train.norms": "renewed"},
    "MixStyle": {"train.method": "mixstyle"},
}
PLAIN = ("ImageNet weights", "narrow head")


def pairs(ingredient: str) -> tuple[tuple[str, ...], ...]:
    """The recipes that a gain compares, each by its ingredients: plain with and without, whole with and without."""
    plain = tuple(each for each in INGREDIENTS if each in PLAIN or each == ingredient)
    whole = tuple(INGREDIENTS)
    bare, lacking = (tuple(each for each in names if each != ingredient) for names in (plain, whole))
    return plain, bare, whole, lacking


def recipes() -> dict[tuple[str, ...], Settings]:
    """The settings of every recipe, by its ingredients."""
    every = dict.fromkeys([PLAIN, tuple(INGREDIENTS), *(each for name in INGREDIENTS for each in pairs(name))])
    return {names: mixed(*names) for names in every}


def mixed(*names: str) -> Settings:
    """The settings of a recipe with these ingredients; augmentations are joined by `+`."""
    settings = dict(BARE)
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
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"), help="folder of all runs")
    arguments = parser.parse_args()
    root = open_root(arguments.data)
    planned = {names: _plan(settings, root, arguments) for names, settings in recipes().items()}
    every = sorted((run for runs in planned.values() for run in runs), key=lambda run: run.config.seed)
    run_experiment(every, choose_executor("processes", every, jobs=arguments.jobs)).check()
    scores = {names: case_values([_score(run) for run in runs]) for names, runs in planned.items()}
    print(
        f"{machine()}. Operator {arguments.op}, {arguments.steps} steps of {arguments.cases} cases at "
        f"{arguments.size}x{arguments.size}, {counted(arguments.runs, 'seed')}, unseen: {', '.join(root.domains)}.\n"
    )
    print(report(scores))
    print(f"\n{head_cost(arguments.op, arguments.size, arguments.cases)}")


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


def report(scores: Mapping[tuple[str, ...], pd.DataFrame]) -> str:
    """Dice of the plain recipe and the whole, then the gain of each ingredient, as Markdown.

    Args:
        scores: the values of cases (`case_values`) of each recipe, by its ingredients.
    """
    lines = ["| recipe | disc | cup | disc: gain in the plain | cup | disc: gain in the whole | cup |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for title, names in (("plain", PLAIN), ("whole", tuple(INGREDIENTS))):
        cells = [_interval(_matrices(scores[names], structure)) for structure in STRUCTURES]
        lines.append(f"| {title} | {' | '.join(cells)} | | | | |")
    for name in INGREDIENTS:
        plain, bare, whole, lacking = (scores[names] for names in pairs(name))
        cells = [_gain(*pair, structure) for pair in ((plain, bare), (whole, lacking)) for structure in STRUCTURES]
        lines.append(f"| {name} | | | {' | '.join(cells)} |")
    return "\n".join(lines)


def head_cost(op: str, size: int, cases: int) -> str:
    """What one step with the narrow head costs, in the processor's time, as a share of one with the wide head."""
    torch.set_num_threads(1)
    narrow = {key.removeprefix("model."): int(value) for key, value in INGREDIENTS["narrow head"].items()}
    seen, truth = torch.rand(cases, 3, size, size), torch.rand(cases, 2, size, size)

    def step(network: nn.Module) -> None:
        binary_cross_entropy_with_logits(network(seen), truth).backward()

    build = partial(build_model, op, encoder=BARE["model.encoder"], image_size=size)
    jobs = {"wide": partial(step, build()), "narrow": partial(step, build(**narrow))}
    ratio = side_by_side(jobs, rounds=_ROUNDS, clock=time.process_time).ratio("narrow", "wide")
    return (
        f"One step with the narrow head takes {ratio} of the processor's time of one with the wide head (median and "
        f"quartiles of {_ROUNDS} rounds)."
    )


def _gain(first: pd.DataFrame, second: pd.DataFrame, structure: str) -> str:
    """First minus second, in points, runs paired by seed and cases by name."""
    matched = zip(_matrices(first, structure), _matrices(second, structure), strict=True)
    return _interval([one - other for one, other in matched], sign="+")


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
