"""SIGKILL at any write of a run, the same command again: the bits of an undisturbed run."""

from __future__ import annotations

import csv
import itertools
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fundus_seg.config import load_config
from fundus_seg.data.layout import open_root
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.runs.folder import RunFolder, find_runs
from fundus_seg.runs.lease import leased
from fundus_seg.training import fit, train

_VALLEY = ["train.epochs=5", "train.average=swad", "train.swad_n_s=2", "train.swad_n_e=2"]
PACES = {
    "each epoch": ["train.save_every=0"],
    "every third": ["train.epochs=5", "train.save_every=2.5"],  # by the test's clock: after epochs 3 and 5
    "exponential mean": ["train.save_every=0", "train.average=ema"],
    "mean of epochs": ["train.save_every=0", "train.average=swa", "train.swa_start=0"],
    "valley": [*_VALLEY, "train.save_every=2.5"],
}
"""How often a run is saved, and what average it keeps."""

# A server with everything imported hands out processes that start at once.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__, "fundus_seg.evaluation.score_run", "fundus_seg.training"])


class Clock:
    """In place of `time` in the loop: a second passes whenever it is asked, so that saves do not hang on real time."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.monotonic = itertools.count().__next__


def whole_run(root: Path, out: Path, op: str, pace: str, fatal_write: int, after_rename: bool) -> None:
    """Train and evaluate; die at the n-th write of a file of the run, before or after it has taken its place."""
    arguments = {"holdout": "A", "model.op": op}
    settings = load_config("tiny", overrides=["train.threads=1", *PACES[pace]], arguments=arguments)
    fit.time = Clock()  # type: ignore[assignment]
    writes = 0
    replace = Path.replace

    def deadly(self: Path, target: Path) -> Path:
        nonlocal writes
        writes += target.is_relative_to(out)  # the cache's writes are not the run's
        fatal = writes == fatal_write and target.is_relative_to(out)
        if fatal and not after_rename:
            os.kill(os.getpid(), signal.SIGKILL)
        replaced = replace(self, target)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return replaced

    Path.replace = deadly  # type: ignore[method-assign]
    evaluate(train(settings, open_root(root), out))
    writes_of(out).write_text(str(writes))


def writes_of(out: Path) -> Path:
    """The file that holds the number of writes of the last life of the run in `out`."""
    return out.with_name(f"{out.name}-writes")


def survive(root: Path, out: Path, op: str, pace: str, fatal_writes: list[tuple[int, bool]]) -> RunFolder:
    """Run to the end through one death after another."""
    for fatal_write, after_rename in [*fatal_writes, (-1, False)]:
        process = context.Process(target=whole_run, args=(root, out, op, pace, fatal_write, after_rename))
        process.start()
        process.join(300)
        assert process.exitcode == (0 if fatal_write < 0 else -signal.SIGKILL)
    (run,) = find_runs([out])
    with leased(run.path):  # a death at the very last write leaves nothing to do, and the next writer sweeps
        pass
    assert [path.name for path in run.path.rglob(".*")] == [".lease"], "what a killed writer left is swept away"
    return run


def outcome(run: RunFolder) -> tuple[object, ...]:
    """All that a run leaves, but times: metrics, evaluation files, weights."""
    with run.metrics.open() as file:
        metrics = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    written = [path for folder in ("evaluations", "floor") for path in (run.path / folder).iterdir()]
    evaluations = {path.name: path.read_bytes() for path in written}
    last = torch.load(run.checkpoint("last"), weights_only=True)
    state = {key: value.numpy().tobytes() for key, value in last["model"].items()}
    kept = [path.read_bytes() for name in ("best", "average") if (path := run.checkpoint(name)).exists()]
    return metrics, evaluations, kept, state


@pytest.mark.slow
@pytest.mark.parametrize("pace", PACES)
def test_killed_run_ends_as_an_undisturbed_one(draw_root, tmp_path, pace):
    root = draw_root()
    rng = np.random.default_rng(len(pace))
    # Writes of a first life: config, metrics, best, last, ... The first death leaves a whole epoch to go on from, if
    # each is saved; the second falls anywhere in what is left.
    deaths = [(int(rng.integers(4, 6)), True), (int(rng.integers(1, 4)), bool(rng.integers(2)))]
    killed = survive(root, tmp_path / "killed", "tvconv", pace, deaths)
    assert outcome(killed) == outcome(survive(root, tmp_path / "whole", "tvconv", pace, []))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "pace"),
    [*((op, "each epoch") for op in ("conv", "depthwise", "tvconv")), *(("tvconv", pace) for pace in [*PACES][1:])],
)
@pytest.mark.parametrize("after_rename", [False, True], ids=["before", "after"])
def test_killed_at_every_single_write(draw_root, tmp_path, op, after_rename, pace):
    root = draw_root()
    expected = outcome(survive(root, tmp_path / "whole", op, pace, []))
    for write in range(1, int(writes_of(tmp_path / "whole").read_text()) + 1):
        assert outcome(survive(root, tmp_path / str(write), op, pace, [(write, after_rename)])) == expected, write
