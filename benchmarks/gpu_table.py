"""Time of the paper's table on this machine's GPU: `paper` runs of each operator, extrapolated to the table's 120.

    python benchmarks/gpu_table.py [--data ROOT] [--jobs N]

The runs are those of `fundus-seg train` and `evaluate`, with validation and checkpoints, cut to a few epochs. They use
as many photographs as the paper does: those of the phantom, repeated. CUDA events mark the ends of steps on the
device's own clock, and torch warns where a step makes the host wait for the device. An epoch lasts from its start to
the start of the next one, so it includes validation and the writing of checkpoints. What a run costs once (building,
first kernels) is the rest of its time.

With --jobs the runs are those of `fundus-seg benchmark --jobs N`, whose workers share the GPU. Only epochs during which
all workers were training are counted, and the cost of starting a run is taken from the later runs of each worker.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pandas as pd
import torch

from fundus_seg.cache_folder import cache_folder
from fundus_seg.config import RunConfig, load_config, resolve_sources
from fundus_seg.data import open_root
from fundus_seg.data.batches import Batch, DomainBatches
from fundus_seg.data.layout import DataRoot
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.experiments.executors import processes
from fundus_seg.experiments.grid import prepare
from fundus_seg.experiments.grid_run import GridRun, Outcome
from fundus_seg.experiments.leave_one_out import plan
from fundus_seg.experiments.work import complete_run
from fundus_seg.phantom.make import make_phantom
from fundus_seg.protocol import DOMAINS
from fundus_seg.training import fit, train
from fundus_seg.training.run_data import load_run_data
from timing import Spread

OPS = ("conv", "depthwise", "tvconv")
HOLDOUTS, SEEDS, EPOCHS = 4, 10, 40
STEPS = 20
"""Steps of an epoch of the paper's data, whose largest source domain has 320 photographs, 16 per step."""
CASES = {"A": {"train": 50, "test": 51}, "B": {"train": 99, "test": 60},
         "C": {"train": 320, "test": 80}, "D": {"train": 320, "test": 80}}  # fmt: skip
"""Photographs of the paper's splits."""
AIM = 60
"""Target for the whole table, in minutes."""
_WAITS = "called a synchronizing CUDA operation"
"""Text of torch's warning about an operation that makes the host wait for the device."""
CROWD = 0.9
"""Share of the workers that must be training during an epoch for the epoch to be counted."""


@dataclass(frozen=True)
class Cost:
    """Cost of one operator's run: milliseconds per step; seconds per epoch, once per run, and of its evaluation.

    `validating` and `writing` are the seconds of an epoch that validation and checkpoints take.
    """

    step: Spread
    epoch: Spread
    once: float
    evaluation: float
    validating: float = 0.0
    writing: float = 0.0
    waits: tuple[str, ...] = ()
    """Places where the steps made the host wait for the device."""

    @property
    def minutes(self) -> float:
        """Minutes of a whole run with its evaluation."""
        return (self.once + EPOCHS * self.epoch.median + self.evaluation) / 60


@dataclass(frozen=True)
class Timeline:
    """Times of a run of a grid, on the system's clock; `process` is the number of its worker process."""

    op: str
    process: int
    begun: float
    epochs: tuple[float, ...]
    """The start of each epoch."""
    trained: float
    evaluated: float

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """The start and the end of each epoch."""
        return list(itertools.pairwise((*self.epochs, self.trained)))

    @property
    def once(self) -> float:
        """Seconds before the first epoch, plus the seconds by which the first epoch is longer than the others."""
        first, *others = (end - start for start, end in self.intervals)
        return self.epochs[0] - self.begun + max(0.0, first - statistics.median(others))


class TimedBatches(DomainBatches):
    """Batches of a run, with a mark on the device's clock before the first step and after every step."""

    marks: ClassVar[list[list[Any]]] = []
    """The marks of each epoch of the latest run."""
    starts: ClassVar[list[float]] = []
    """The start of each epoch of the latest run, on the system's clock."""
    waits: ClassVar[list[str]] = []
    """Places where the steps of the latest run made the host wait for the device."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        self.starts.append(time.time())
        marks = [mark()]
        self.marks.append(marks)
        for batch in super().epoch(epoch):
            with waits_noted() as found:
                yield batch
            self.waits.extend(found)
            marks.append(mark())


@contextlib.contextmanager
def timed_batches() -> Iterator[None]:
    """Within it, runs use TimedBatches, whose records are cleared first."""
    for record in (TimedBatches.marks, TimedBatches.starts, TimedBatches.waits):
        record.clear()
    with patch.object(fit, "DomainBatches", TimedBatches):
        yield


def mark() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


@contextlib.contextmanager
def waits_noted() -> Iterator[list[str]]:
    """Collects each place within it where the host waited for the device; the list is filled when it is left."""
    found: list[str] = []
    on_gpu = torch.cuda.is_available()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    found += [f"{each.filename}:{each.lineno}: {each.message}" for each in caught if _WAITS in str(each.message)]


def main() -> int:
    """Measure, print; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", help="data root (default: the phantom, as many cases as the paper has)")
    options.add_argument(
        "--epochs", type=int, default=5, help="epochs of each run, at least four; the first is not counted"
    )
    options.add_argument("--jobs", type=int, help="measure a grid whose N workers share the GPU")
    options.add_argument("--prepare", action="store_true", help="only draw, decode and resize the photographs")
    arguments = options.parse_args()
    if arguments.prepare:
        root = open_root(arguments.data or as_many_as_the_paper(cache_folder() / "phantom-as-many-as-the-paper"))
        prepare(planned_runs(root, Path(), 1, 4))
        return 0
    if not torch.cuda.is_available():
        print("error: no CUDA device here: run this on a machine with an NVIDIA GPU.", file=sys.stderr)
        return 1
    root = open_root(arguments.data or as_many_as_the_paper(cache_folder() / "phantom-as-many-as-the-paper"))
    machine = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    if arguments.jobs:
        with tempfile.TemporaryDirectory() as out:
            lines, start = measure_grid(root, Path(out), arguments.jobs, arguments.epochs)
        print(grid_report(lines, start, arguments.jobs, machine))
        return 0
    settings = [*common_settings(arguments.epochs), "train.precision=bf16", "train.channels_last=true"]
    costs = {}
    for op in ("conv", *OPS):  # the first run also pays what a process pays once, so it is repeated
        config = load_config("paper", overrides=settings, arguments={"holdout": root.domains[0], "model.op": op})
        cost = measure(config, root)
        if not costs:
            print(f"A process's first run: {cost.once:.1f} s once, {cost.evaluation:.1f} s evaluation.", flush=True)
        costs[op] = cost
    print(report(costs, machine))
    return 0


def common_settings(epochs: int) -> list[str]:
    """Settings in which the short runs differ from the preset."""
    return [f"train.epochs={epochs}", f"train.steps_per_epoch={STEPS}", "model.encoder_weights=none"]


def as_many_as_the_paper(folder: Path, per_domain: int = 12) -> Path:
    """A phantom with as many cases as the paper's splits: a few are drawn, and each is linked under many names."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        drawn, staged = make_phantom(Path(scratch, "drawn"), per_domain=per_domain), Path(scratch, "staged")
        for domain, splits in CASES.items():
            for (split, count), kind in itertools.product(splits.items(), ("image", "mask")):
                where = Path(DOMAINS[domain].folder, split, "ROIs", kind)
                (staged / where).mkdir(parents=True)
                files = itertools.islice(itertools.cycle(sorted((drawn / where).iterdir())), count)
                for number, file in enumerate(files):
                    (staged / where / f"{file.stem}-{number:03d}.png").hardlink_to(file)
        for marker in drawn.glob("*.json"):
            shutil.copy(marker, staged)
        staged.rename(folder)
    return folder


def measure(config: RunConfig, root: DataRoot) -> Cost:
    """Train and evaluate one run in a temporary folder, after its photographs have been resized."""
    load_run_data(resolve_sources(config, root.domains, where=root.path), root)
    with tempfile.TemporaryDirectory() as out, timed_batches():
        started = time.time()
        run = train(config, root, Path(out))
        trained = time.time()
        evaluate(run)
        evaluated = time.time()
        fitted = pd.read_csv(run.metrics)["seconds"].tolist()  # of an epoch's steps and its validation
    starts = TimedBatches.starts
    steps = [[a.elapsed_time(b) for a, b in itertools.pairwise(marks)] for marks in TimedBatches.marks]
    epochs = [end - start for start, end in itertools.pairwise(starts)]
    epoch = Spread.of(epochs[1:])
    validating = statistics.median(f - sum(ms) / 1e3 for f, ms in zip(fitted[1:], steps[1:], strict=True))
    writing = statistics.median(whole - f for whole, f in zip(epochs[1:], fitted[1:], strict=False))
    return Cost(
        Spread.of([step for of_epoch in steps[1:] for step in of_epoch]),
        epoch,
        trained - started - len(starts) * epoch.median,
        evaluated - trained,
        validating,
        writing,
        tuple(TimedBatches.waits),
    )


def report(costs: dict[str, Cost], machine: str) -> str:
    """The table, with the machine above it and the time of the whole grid below."""
    runs = HOLDOUTS * SEEDS
    minutes = runs * sum(cost.minutes for cost in costs.values())
    lines = [
        f"{machine}; bf16, channels last, 48 photographs of 256x256 a step, {STEPS} steps an epoch.",
        "Median (quartiles).",
        "",
        f"| operator | step [ms] | epoch [s] | of it: validation, writing [s] | once a run [s] | evaluation [s] | "
        f"run of {EPOCHS} epochs [min] |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for op, cost in costs.items():
        parts = f"{cost.validating:.2f}, {cost.writing:.2f}"
        numbers = f"{cost.once:.1f} | {cost.evaluation:.1f} | {cost.minutes:.2f}"
        lines.append(f"| {op} | {cost.step} | {cost.epoch} | {parts} | {numbers} |")
    lines.append("")
    for op, cost in costs.items():
        lines.append(f"summary: {op}: {len(cost.waits)} host waits in the steps; a step {cost.step} ms, an epoch "
                     f"{cost.epoch} s.")  # fmt: skip
        lines += [f"  {wait}" for wait in dict.fromkeys(cost.waits)]
    lines.append(f"summary: {_verdict(f'{runs * len(costs)} runs, one after another,', minutes)}")
    return "\n".join(lines)


def _verdict(what: str, minutes: float) -> str:
    reached = "reached" if minutes < AIM else "not reached"
    return f"extrapolated: {what} take {minutes:.0f} minutes; aim: less than {AIM}, {reached}."


def planned_runs(root: DataRoot, out: Path, seeds: int, epochs: int) -> list[GridRun]:
    """Short runs of every operator with one holdout."""
    settings = common_settings(epochs)
    return plan(root, out, ops=OPS, seeds=range(seeds), holdouts=root.domains[:1], overrides=settings)


def measure_grid(root: DataRoot, out: Path, jobs: int, epochs: int) -> tuple[list[Timeline], float]:
    """Run a short grid of at least two runs per worker; give the runs' times and the seconds until the first began."""
    runs = planned_runs(root, out, math.ceil(2 * jobs / len(OPS)), epochs)
    prepare(runs)
    started = time.time()
    for run, outcome in processes([0] * jobs)(timed_run, runs):
        if outcome.state != "done":
            print(f"{run.name}: {outcome.reason}\n{outcome.details}", flush=True)
    lines = [read_timeline(run) for run in runs if (run.folder.path / "timeline.json").exists()]
    return lines, min(line.begun for line in lines) - started


def timed_run(run: GridRun) -> Outcome:
    """`complete_run`, which also writes the run's timeline into its folder."""
    begun = time.time()
    with timed_batches():
        outcome = complete_run(run)
    if outcome.state == "done":
        trained = (run.folder.path / "TRAINED").stat().st_mtime
        starts = tuple(TimedBatches.starts)
        line = Timeline(run.config.model.op, os.getpid(), begun, starts, trained, time.time())
        (run.folder.path / "timeline.json").write_text(json.dumps(asdict(line)), "utf8")
    return outcome


def read_timeline(run: GridRun) -> Timeline:
    content = json.loads((run.folder.path / "timeline.json").read_text("utf8"))
    return Timeline(**{**content, "epochs": tuple(content["epochs"])})


def crowded(lines: Sequence[Timeline], jobs: int) -> list[tuple[str, float]]:
    """Operator and seconds of each epoch during which CROWD of the workers were training; first epochs are left out."""
    training = [(line.epochs[0], line.trained) for line in lines]

    def crowd(start: float, end: float) -> float:
        return sum(max(0.0, min(end, b) - max(start, a)) for a, b in training) / (end - start)

    return [
        (line.op, end - start)
        for line in lines
        for start, end in line.intervals[1:]
        if crowd(start, end) >= CROWD * jobs
    ]


def grid_report(lines: Sequence[Timeline], start: float, jobs: int, machine: str) -> str:
    """What runs cost while others share the GPU, and the time of the whole table with that many workers."""
    epochs = crowded(lines, jobs)
    first: dict[int, float] = {}
    for line in sorted(lines, key=lambda line: line.begun):
        first.setdefault(line.process, line.begun)
    warm = [line for line in lines if line.begun > first[line.process]]
    once = statistics.median(line.once for line in warm)
    evaluation = statistics.median(line.evaluated - line.trained for line in warm)
    text = [
        f"{machine}; {jobs} workers of one thread on one GPU; {len(epochs)} epochs beside {CROWD:.0%} or more of the "
        "others; median (quartiles).",
        "",
        f"| operator | epoch [s] | epoch / {jobs} [s] | once a run [s] | evaluation [s] |",
        "|---|---:|---:|---:|---:|",
    ]
    total = 0.0
    for op in OPS:
        counted = [seconds for name, seconds in epochs if name == op]
        if len(counted) < 2:  # the grid was too short: take all epochs but the first of each run
            counted = [end - start for line in lines if line.op == op for start, end in line.intervals[1:]]
        epoch = Spread.of(counted)
        total += HOLDOUTS * SEEDS * (once + EPOCHS * epoch.median + evaluation) / jobs
        text.append(f"| {op} | {epoch} | {epoch.median / jobs:.2f} | {once:.1f} | {evaluation:.1f} |")
    cold = max(max(line.once for line in lines) - once, 0.0)
    text += ["", f"The first worker began after {start:.1f} s; a worker's first run took up to {cold:.1f} s longer."]
    minutes = (total + start + cold) / 60
    text.append(f"summary: {_verdict(f'{HOLDOUTS * SEEDS * len(OPS)} runs by {jobs} workers', minutes)}")
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
