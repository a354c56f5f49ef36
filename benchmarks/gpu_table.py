"""Time of the paper's table on this machine's GPU: one `paper` run of each operator, extrapolated to the table's 120.

    python benchmarks/gpu_table.py [--data ROOT]

The runs are those of `fundus-seg train`, with validation and checkpoints, cut to a few epochs. CUDA events mark the
ends of steps on the device's own clock, and torch raises if a step makes the host wait for the device. The time of an
epoch is the median over epochs; what a run costs once (building, first kernels) is the rest of its time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pandas as pd
import torch

from fundus_seg.config import RunConfig, load_config, resolve_sources
from fundus_seg.data import open_root
from fundus_seg.data.batches import Batch, DomainBatches
from fundus_seg.data.layout import DataRoot
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.training import fit, train
from fundus_seg.training.run_data import load_run_data
from timing import Spread

OPS = ("conv", "depthwise", "tvconv")
HOLDOUTS, SEEDS, EPOCHS = 4, 10, 40
STEPS = 20
"""Steps of an epoch of the paper's data, whose largest source domain has 320 photographs, 16 per step."""
AIM = 60
"""Target for the whole table, in minutes."""


@dataclass(frozen=True)
class Cost:
    """Cost of one operator's run: milliseconds per step; seconds per epoch, once per run, and of its evaluation."""

    step: Spread
    epoch: Spread
    once: float
    evaluation: float

    @property
    def minutes(self) -> float:
        """Minutes of a whole run with its evaluation."""
        return (self.once + EPOCHS * self.epoch.median + self.evaluation) / 60


class TimedBatches(DomainBatches):
    """Batches of a run, with a mark on the device's clock before the first step and after every step."""

    marks: ClassVar[list[list[Any]]] = []
    """The marks of each epoch of the latest run."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        marks = [mark()]
        self.marks.append(marks)
        for batch in super().epoch(epoch):
            with waiting_refused():
                yield batch
            marks.append(mark())


def mark() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


@contextlib.contextmanager
def waiting_refused() -> Iterator[None]:
    """Within it, an operation that makes the host wait for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def main() -> int:
    """Measure, print; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default="phantom", help="data root (default: phantom; its steps are the paper's)")
    options.add_argument("--epochs", type=int, default=6, help="of each run, two or more; the first is left out")
    arguments = options.parse_args()
    if not torch.cuda.is_available():
        print("error: no CUDA device here: run this on a machine with an NVIDIA GPU.", file=sys.stderr)
        return 1
    root = open_root(arguments.data)
    settings = [f"train.epochs={arguments.epochs}", f"train.steps_per_epoch={STEPS}", "model.encoder_weights=none"]
    settings += ["train.precision=bf16", "train.channels_last=true"]
    costs = {}
    for op in OPS:
        config = load_config("paper", overrides=settings, arguments={"holdout": root.domains[0], "model.op": op})
        costs[op] = measure(config, root)
    print(report(costs, f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.data}"))
    return 0


def measure(config: RunConfig, root: DataRoot) -> Cost:
    """Train and evaluate one run in a temporary folder, after its photographs have been resized."""
    load_run_data(resolve_sources(config, root.domains, where=root.path), root)
    TimedBatches.marks.clear()
    with tempfile.TemporaryDirectory() as out, patch.object(fit, "DomainBatches", TimedBatches):
        started = time.perf_counter()
        run = train(config, root, Path(out))
        trained = time.perf_counter()
        evaluate(run)
        evaluated = time.perf_counter()
        seconds = pd.read_csv(run.metrics)["seconds"].tolist()
    steps = [a.elapsed_time(b) for marks in TimedBatches.marks[1:] for a, b in itertools.pairwise(marks)]
    epoch = Spread.of(seconds[1:])
    return Cost(Spread.of(steps), epoch, trained - started - len(seconds) * epoch.median, evaluated - trained)


def report(costs: dict[str, Cost], machine: str) -> str:
    """The table, with the machine above it and the whole grid below."""
    runs = HOLDOUTS * SEEDS
    minutes = runs * sum(cost.minutes for cost in costs.values())
    lines = [
        f"{machine}; bf16, channels last, 48 photographs of 256x256 a step, {STEPS} steps an epoch.",
        "Median (quartiles). No step made the host wait for the device.",
        "",
        f"| operator | step [ms] | epoch [s] | once a run [s] | evaluation [s] | run of {EPOCHS} epochs [min] |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for op, cost in costs.items():
        numbers = f"{cost.once:.1f} | {cost.evaluation:.1f} | {cost.minutes:.2f}"
        lines.append(f"| {op} | {cost.step} | {cost.epoch} | {numbers} |")
    reached = "reached" if minutes < AIM else "not reached"
    lines += ["", f"Extrapolated: {runs * len(costs)} runs, one after another, take {minutes:.0f} minutes; "
                  f"aim: less than {AIM}, {reached}."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
