"""SIGKILL of the command and of its workers, two commands at once: the bytes of an undisturbed grid."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fundus_seg.data.layout import open_root
from fundus_seg.experiments.executors import serial
from fundus_seg.experiments.grid import run_grid
from fundus_seg.experiments.leave_one_out import plan

EPOCHS = 8  # so many that a kill meant to fall between two of them does, on a busy machine too
SETTINGS = [f"train.epochs={EPOCHS}", "train.save_every=0"]
OPS = ["conv", "tvconv"]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


def whole_grid(root, out, log=None):
    """The grid in this process, one run after the other; each file that it writes is a line of `log`."""
    if log:
        replace = Path.replace

        def logged(self, target):
            with log.open("a") as file:
                file.write(f"{target}\n")
            return replace(self, target)

        Path.replace = logged
    runs = plan(open_root(root), out, ops=OPS, seeds=[0], holdouts=["A"], config="tiny", overrides=SETTINGS)
    assert {outcome.state for _, outcome in run_grid(runs, serial)} == {"done"}


def command(root, out, jobs):
    program = str(Path(sys.executable).with_name("fundus-seg"))
    options = [
        "--data",
        root,
        "--out",
        out,
        "--config",
        "tiny",
        *(part for each in SETTINGS for part in ("--set", each)),
        "--runs",
        1,
        "--holdouts",
        "A",
    ]
    return subprocess.Popen(
        [program, "benchmark", *map(str, options), "--ops", ",".join(OPS), "--jobs", str(jobs), "--format", "markdown"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def scores(out):
    """The bytes of every evaluation file, checkpoint digests among them."""
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("evaluations/*")}


def files(out):
    return [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]


def wait_for_files(out, count, process):
    while len(files(out)) < count and process.poll() is None:
        time.sleep(0.01)


def between_epochs(out):
    """The runs that are under way, some epochs behind them."""
    return [last.parents[1] for last in out.rglob("last.ckpt") if not (last.parents[1] / "TRAINED").exists()]


def kill_workers(out):
    """Those that hold a lease."""
    for lease in out.rglob(".lease"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)


def survive(root, out, points, jobs):
    """Kill a worker when there are so many files more, then the command at so many more; at last let it end.

    Gives what it then printed and, for each command that a kill ended, the runs that were between two epochs.
    """
    hit = []
    for worker, more in points:
        there = len(files(out))
        process = command(root, out, jobs)
        wait_for_files(out, there + worker, process)
        kill_workers(out)
        wait_for_files(out, there + worker + more, process)
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            hit.append(between_epochs(out))
    process = command(root, out, jobs)
    printed, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return printed, hit


@pytest.mark.slow
def test_a_killed_grid_ends_as_an_undisturbed_one(draw_root, tmp_path):
    root = draw_root()
    whole_grid(root, tmp_path / "whole")
    # A run has five files after its first epoch, no more in the next ones, and eight more when it is scored.
    printed, hit = survive(root, tmp_path / "killed", [(5, 12)], jobs=1)
    assert [len(runs) for runs in hit] == [1]
    assert scores(tmp_path / "killed") == scores(tmp_path / "whole")
    assert len(scores(tmp_path / "whole")) == 2 * 3
    assert "| DSC [%] | disc (OD) | A |" in printed
    assert "unseen domains: tvconv and conv" in printed


@pytest.mark.slow
def test_killed_at_random_points(draw_root, tmp_path):
    root = draw_root()
    whole_grid(root, tmp_path / "whole")
    rng = np.random.default_rng(0)
    for trial in range(5):
        out = tmp_path / str(trial)
        _, hit = survive(root, out, [tuple(rng.integers(1, 5, size=2)) for _ in range(3)], jobs=2)
        assert hit, trial
        assert scores(out) == scores(tmp_path / "whole"), trial


@pytest.mark.slow
def test_two_copies_train_every_run_once(draw_root, tmp_path):
    root, out, log = draw_root(), tmp_path / "both", tmp_path / "log"
    copies = [context.Process(target=whole_grid, args=(root, out, log)) for _ in range(2)]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.join(300)
        assert copy.exitcode == 0
    written = Counter(Path(line) for line in log.read_text().splitlines())
    runs = [marker.parent for marker in out.rglob("TRAINED")]
    assert len(runs) == 2
    for run in runs:
        assert [written[run / name] for name in ("config.yaml", "metrics.csv", "TRAINED")] == [1, EPOCHS, 1]
    whole_grid(root, tmp_path / "whole")
    assert scores(out) == scores(tmp_path / "whole")
