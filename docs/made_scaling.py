"""What a run and an experiment cost: the computed parts of docs/scaling.md, and the speed in the README."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from made_table import benchmark_rows, milliseconds, table

from fundus_seg.config import Recipe, load_config, load_recipe, resolve_sources
from fundus_seg.experiments.capacity import run_bytes
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.models import build_model
from fundus_seg.runs.folder import RunFolder

OPERATORS = ("conv", "depthwise", "tvconv")
TRAIN, TEST = {"A": 50, "B": 99, "C": 320, "D": 320}, {"A": 51, "B": 60, "C": 80, "D": 80}
"""Cases in the splits of the paper's four domains."""
SEEDS = 10
TENSORS_MIB = {"conv": 66, "depthwise": 85, "tvconv": 64}
"""Tensors of a training step for each photograph, measured with `peak_memory` at batches of 2 and 6, at 256x256."""
PHOTOGRAPHS = 100_000
MASK_KB = 4
"""Size of the mask file of a photograph of 800x800 with a disc and a cup, measured with `benchmarks/predict.py`."""
EIGHT_TO_FOUR = 1.39
"""How many times as long as a step of 4 photographs one of 8 takes, tvconv, measured with one thread."""


def speed() -> str:
    """Three of the ratios that `make bench` measures."""
    naive, depthwise = "the naive formulation takes {} times as long", "{} times as long as with depthwise blocks"
    wanted = {
        ("operator (16,1920,16,16), k 3, fp32, forward + backward", "naive"): naive,
        ("training step, batch 16, 256x256, tvconv, fp32, contiguous", "depthwise"): depthwise,
        ("inference, batch 1, 256x256, tvconv, baked", "depthwise"): depthwise,
    }
    ratios = {(cells[0], cells[1]): cells[2] for cells in benchmark_rows("cpu.md") if len(cells) > 2}
    return table(("what", "time"), [(where[0], text.format(ratios[where])) for where, text in wanted.items()])


def run_cost() -> str:
    """The costs of one run, a column per operator."""
    steps = steps_of_an_epoch() * _paper().train.epochs
    step = {op: milliseconds("cpu.md", f"step: {op}, bf16, channels last") / 1e3 for op in OPERATORS[1:]}
    rows = [
        ("parameters", _each(lambda op: f"{parameters(op)}"), "C"),
        ("weights of a checkpoint [MB]", _each(lambda op: f"{weights(op) / 1e6:.1f}"), "C"),
        (
            "`last.ckpt` while training: weights and Adam's two means [MB]",
            _each(lambda op: f"{training_state(op) / 1e6:.1f}"),
            "C",
        ),
        (
            "tensors of a step, for each photograph [MiB]",
            _each(lambda op: f"{TENSORS_MIB[op]}"),
            "M: `peak_memory`, batch 2 and 6",
        ),
        ("the same, of 48 photographs [GiB]", _each(lambda op: f"{48 * TENSORS_MIB[op] / 1024:.1f}"), "C"),
        (
            "step of 16 photographs, CPU [s]",
            _each(lambda op: f"{step[op]:.2f}" if op in step else ""),
            "M: [cpu.md](../benchmarks/cpu.md)",
        ),
        (
            "step of 48 photographs, CPU, at most [s]",
            _each(lambda op: f"{3 * step[op]:.1f}" if op in step else ""),
            "C: three times that",
        ),
        (
            f"run of {steps} steps, CPU, at most [h]",
            _each(lambda op: f"{3 * step[op] * steps / 3600:.1f}" if op in step else ""),
            "C",
        ),
    ]
    return table(("quantity", *OPERATORS, "source"), [(what, *values, how) for what, values, how in rows], numbers=3)


def run_counts() -> str:
    """What the terms of a run's time count, and what its evaluation and its writing come to."""
    largest, batch, epochs = max(TRAIN.values()), _paper().train.batch_per_domain, _paper().train.epochs
    tests = [sum(TEST.values()) - count for count in TEST.values()]
    inference = milliseconds("cpu.md", "inference: tvconv, channels last")
    scoring = milliseconds("distances.md", "whole case")
    epoch = training_state("tvconv") + weights("tvconv")
    rows = [
        ("steps of an epoch, whatever the holdout", f"⌈{largest} / {batch}⌉ = {steps_of_an_epoch()}"),
        ("cases that validate: half of the sources' test cases", f"half of {min(tests)} to {max(tests)}"),
        ("written in a save of tvconv, at most [MB]", f"{epoch / 1e6:.0f}"),
        ("written in a run of tvconv, saved after every epoch, at most [GB]", f"{epochs * epoch / 1e9:.1f}"),
        (
            "inference and scoring of 80 cases, tvconv, CPU [s]",
            f"80 · ({inference:.0f} + {scoring:.1f}) ms = {80 * (inference + scoring) / 1e3:.1f}",
        ),
    ]
    return table(("quantity", "value"), rows, numbers=1)


def fixed_part() -> str:
    """What TVConv pays once a step, by a straight line through the steps of 4 and of 8 photographs."""
    worth = (8 - 4 * EIGHT_TO_FOUR) / (EIGHT_TO_FOUR - 1)
    size = _paper().data.size
    case, cases = 5 * size**2, sum(TRAIN.values()) + sum(TEST.values())
    on_gpu = sum(sorted(TRAIN.values())[1:])
    rows = [
        ("fixed part of a step of tvconv, in photographs", f"{worth:.1f}"),
        ("the same, of a step of 48 [%]", f"{100 * worth / (worth + 48):.0f}"),
        (f"cache, for each case at {size}x{size} (5 bytes a pixel) [kB]", f"{case / 1e3:.0f}"),
        (f"cache, for all {cases} cases [MB]", f"{case * cases / 1e6:.0f}"),
        ("training splits in a GPU's memory, at most [MB]", f"{case * on_gpu / 1e6:.0f}"),
    ]
    return table(("quantity", "value"), rows, numbers=1)


def experiment_cost() -> str:
    """What the 120 runs take, and what the grid reckons with for each."""
    runs = len(TRAIN) * SEEDS
    config = resolve_sources(load_config("paper", arguments={"holdout": "A"}), tuple(TRAIN), where=Path())
    memory = run_bytes(GridRun(config, "", Path(), "", RunFolder(Path())))
    state, kept = training_state("tvconv"), weights("tvconv")
    hours = 3 * milliseconds("cpu.md", "step: tvconv, bf16, channels last") / 1e3 / 3600
    hours *= 3 * runs * steps_of_an_epoch() * _paper().train.epochs
    rows = [
        ("weights, gradients and Adam's means of tvconv [GB]", f"{4 * 4 * parameters('tvconv') / 1e9:.1f}"),
        ("memory that the grid reckons with for a run, at most [GB]", f"{memory / 1e9:.1f}"),
        ("runs that fit into a GPU of 80 GB", f"{int(80e9 // memory)}"),
        ("runs that fit into a CPU machine of 16 GB", f"{int(16e9 // memory)}"),
        ("checkpoints of 120 runs, two each [GB]", f"{2 * runs * sum(map(weights, OPERATORS)) / 1e9:.1f}"),
        ("more for each run under way, at most [GB]", f"{(kept + 2 * state - 2 * kept) / 1e9:.1f}"),
        ("more with `--probe-holdout`, for 120 runs [GB]", f"{runs * sum(map(weights, OPERATORS)) / 1e9:.1f}"),
        ("120 runs on two CPU threads, one after the other, at most [h]", f"{hours:.0f}"),
    ]
    return table(("quantity", "value"), rows, numbers=1)


def grid() -> str:
    """What running many runs at a time costs, as `make bench-grid` measures it."""
    rows = [cells[:2] for cells in benchmark_rows("grid.md") if len(cells) == 4][2:]
    return table(("quantity", "value"), rows, numbers=1)


def predicting() -> str:
    """What `predict` costs beside its network, as `make bench` measures it."""
    tables = benchmark_rows("predict.md")
    walls = [cells for cells in tables if len(cells) == 6][2:]
    processor = [cells for cells in tables if len(cells) == 5][2:]
    rows = [(wall[0], *wall[1:4], of[4]) for wall, of in zip(walls, processor, strict=True)]
    header = ("photographs", "network [ms]", "predict [ms]", "throughput over the network's", "with a core for each")
    return table(header, rows, numbers=4)


def predicting_memory() -> str:
    """The memory of `predict`, as `make bench` measures it."""
    rows = [cells[:2] for cells in benchmark_rows("predict.md") if len(cells) == 4 and not set(cells[0]) <= set("-")]
    return table(("peak memory of predict (M)", "value"), rows[1:], numbers=1)


def predicting_on_ray() -> str:
    """What `predict` costs on a Ray cluster, as `make bench-ray` measures it, and what that comes to for many."""
    measured = [cells for cells in benchmark_rows("predict_ray.md") if cells[0] not in ("what", "---")]
    each, fixed = (float(measured[row][1].split()[0]) for row in (1, 4))
    rows = [(*cells, "M") for cells in measured]
    for cores in (2, 16, 64, 256):
        minutes = (fixed + PHOTOGRAPHS * each * 2 / cores) / 60
        rows.append((f"{PHOTOGRAPHS} photographs on {cores} such cores [min]", f"{minutes:.0f}", "C"))
    rows.append(
        (
            f"masks of {PHOTOGRAPHS} photographs of 800x800, {MASK_KB} kB each [GB]",
            f"{PHOTOGRAPHS * MASK_KB / 1e6:.1f}",
            "C",
        )
    )
    return table(("quantity", "value", "source"), rows, numbers=1)


@cache
def network(op: str) -> torch.nn.Module:
    """The paper's network, without values."""
    with torch.device("meta"):
        return build_model(op, encoder_weights=None)


def parameters(op: str) -> int:
    """The number of parameters."""
    return sum(each.numel() for each in network(op).parameters())


def weights(op: str) -> int:
    """The bytes of a checkpoint."""
    return sum(each.nbytes for each in network(op).state_dict().values())


def training_state(op: str) -> int:
    """The bytes of `last.ckpt` while the run trains: weights and Adam's two means."""
    return weights(op) + 2 * 4 * parameters(op)


def steps_of_an_epoch() -> int:
    """One pass over the largest source domain; two domains are the largest, so that no holdout changes it."""
    return math.ceil(max(TRAIN.values()) / _paper().train.batch_per_domain)


def _paper() -> Recipe:
    return load_recipe("paper")


def _each(text: Callable[[str], str]) -> list[str]:
    return [text(op) for op in OPERATORS]


PARTS: dict[str, Callable[[], str]] = {
    "speed": speed,
    "run-cost": run_cost,
    "run-counts": run_counts,
    "fixed-part": fixed_part,
    "experiment-cost": experiment_cost,
    "grid": grid,
    "predict": predicting,
    "predict-memory": predicting_memory,
    "predict-ray": predicting_on_ray,
}
