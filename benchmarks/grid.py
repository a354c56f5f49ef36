"""Overhead of a grid of runs: throughput of two runs at a time, start of a run, cost of the loop around a step.

    make bench-grid

The runs use the phantom and the preset `demo` with MobileNetV2 from scratch and without augmentation, in float32, with
one thread each. The page is written to `grid.md`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F

from fundus_seg.config import RunConfig, load_config
from fundus_seg.data import open_root
from fundus_seg.data.layout import DataRoot
from fundus_seg.experiments.executors import processes
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.experiments.leave_one_out import plan
from fundus_seg.experiments.work import complete_run
from fundus_seg.hardware import machine
from fundus_seg.models import build_model
from fundus_seg.progress import Advance, Silent
from fundus_seg.training import train
from timing import Spread, Timings

SETTINGS = [
    "model.encoder=mobilenet_v2",
    "model.encoder_weights=none",
    "train.augment=none",
    "train.precision=fp32",
    "train.threads=1",
    "train.channels_last=true",
]
THROUGHPUT, FIRST_STEP_SECONDS, OVERHEAD_PERCENT = 1.8, 1.0, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8, help="of each grid whose throughput is measured")
    parser.add_argument("--rounds", type=int, default=3, help="of both grids, of starts")
    parser.add_argument("--steps", type=int, default=60, help="measured beside a bare loop")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = open_root("phantom")
    root.cases("A", "train")  # drawn before anything is timed
    throughput = [_ratio_of_throughputs(root, arguments.runs) for _ in range(arguments.rounds)]
    starts = [_second_start(root) for _ in range(arguments.rounds)]
    steps = _steps(root, arguments.steps)
    arguments.out.write_text(report(throughput, starts, steps), "utf8")
    print(arguments.out.read_text("utf8"))


def _ratio_of_throughputs(root: DataRoot, runs: int) -> float:
    """Runs per second of two workers, divided by that of one worker."""
    one, two = (_throughput(root, runs, jobs) for jobs in (1, 2))
    return two / one


def _throughput(root: DataRoot, count: int, jobs: int) -> float:
    """Runs per second once every worker has finished its first run."""
    with tempfile.TemporaryDirectory() as out:
        runs = _runs(root, Path(out), range(count + jobs))
        ends = [time.perf_counter() for _ in processes([None] * jobs)(complete_run, runs)]
    return count / (ends[-1] - ends[jobs - 1])


def _runs(root: DataRoot, out: Path, seeds: Sequence[int]) -> list[GridRun]:
    short = ["train.epochs=1", "optim.drop_epochs=[]"]
    return plan(root, out, ops=["conv"], seeds=seeds, holdouts=["A"], config="demo", overrides=[*SETTINGS, *short])


class _Steps(Silent):
    """Records when the steps of a run end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        def advance(**_: object) -> None:
            if description.startswith("epoch"):
                self.ends.append(time.perf_counter())

        yield advance


def _second_start(root: DataRoot) -> float:
    """Seconds from the start of a process's second run to the end of its first step."""
    with tempfile.TemporaryDirectory() as out:
        for run in _runs(root, Path(out), range(2)):
            steps, started = _Steps(), time.perf_counter()
            train(run.config, root, run.out, progress=steps)
    return steps.ends[0] - started


class _BesideBare(Silent):
    """After each step of a run, runs a step of a bare loop on a prepared batch: same network, loss and optimiser."""

    def __init__(self, config: RunConfig) -> None:
        self.seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        layout = torch.channels_last
        self.network = build_model(**config.network_spec(), encoder_weights=None).train().to(memory_format=layout)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.optim.lr, betas=config.optim.betas, fused=True
        )
        cases, size = 3 * config.train.batch_per_domain, config.data.size
        self.images = torch.randn(cases, 3, size, size).to(memory_format=layout)
        self.masks = torch.randint(2, (cases, 2, size, size)).float()

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        before = time.perf_counter()

        def advance(**_: object) -> None:
            nonlocal before
            if not description.startswith("epoch"):
                return
            ours = time.perf_counter()
            self._step()
            bare = time.perf_counter()
            self.seconds["ours"].append(ours - before)
            self.seconds["bare"].append(bare - ours)
            before = time.perf_counter()

        yield advance

    def _step(self) -> None:
        loss = F.binary_cross_entropy_with_logits(self.network(self.images), self.masks)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def _steps(root: DataRoot, count: int) -> Timings:
    """Steps of a run alternating with those of a bare loop, without the first of each."""
    overrides = [*SETTINGS, f"train.steps_per_epoch={count + 1}", "train.epochs=1", "optim.drop_epochs=[]"]
    config = load_config("demo", overrides=overrides, arguments={"holdout": "A", "model.op": "conv"})
    beside = _BesideBare(config)
    with tempfile.TemporaryDirectory() as out:
        train(config, root, Path(out), progress=beside)
    return Timings({name: seconds[1:] for name, seconds in beside.seconds.items()})


def report(throughput: list[float], starts: list[float], steps: Timings) -> str:
    """The text of the page."""
    ratio = steps.ratio("ours", "bare")
    overhead = Spread(*(100 * (value - 1) for value in (ratio.median, ratio.first, ratio.third)))
    rows = [
        ("runs a second, 2 jobs x 1 thread over 1 job x 1 thread", Spread.of(throughput), THROUGHPUT, True),
        (
            "second run of a warm process, seconds to the end of its first step",
            Spread.of(starts),
            FIRST_STEP_SECONDS,
            False,
        ),
        ("a step over that of a bare loop, % more", overhead, OVERHEAD_PERCENT, False),
    ]
    lines = [
        "# What a grid costs beside the training",
        "",
        f"{machine()}. Phantom, preset demo with MobileNetV2 and without augmentation, float32, one thread a run.",
        "",
        "Written by `make bench-grid`. Shown are the median over rounds, or steps, and in brackets the quartiles.",
        "",
        "| what | measured | to reach | reached |",
        "|---|---:|---:|---|",
    ]
    for what, spread, aim, more in rows:
        reached = spread.median >= aim if more else spread.median <= aim
        lines.append(f"| {what} | {spread} | {'>=' if more else '<='} {aim:g} | {'yes' if reached else 'no'} |")
    milliseconds = steps.milliseconds("ours")
    lines += [
        "",
        f"A step of 12 photographs of 128x128 with `conv`: {milliseconds} ms, its batch drawn and gathered.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
