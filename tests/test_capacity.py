"""How many workers a machine is given, and which GPU each."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fundus_seg import container
from fundus_seg.config import load_config, resolve_sources
from fundus_seg.experiments import capacity
from fundus_seg.experiments.capacity import run_bytes, worker_slots
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.runs.folder import RunFolder


def run(size=256, threads=1):
    overrides = [f"data.size={size}", f"train.threads={threads}"]
    config = load_config("paper", overrides=overrides, arguments={"holdout": "A"})
    return GridRun(resolve_sources(config, "ABCD", where=Path()), "", Path(), "", RunFolder(Path()))


@pytest.fixture
def machine(monkeypatch):
    """A function that makes it one of so many cores, so many runs' worth of memory, or of each GPU's."""

    def make(cores, memory=100.0, gpus=()):
        monkeypatch.setattr(capacity, "core_count", lambda: cores)
        monkeypatch.setattr(capacity, "memory_free", lambda: memory * run_bytes(run()))
        monkeypatch.setattr(capacity, "_gpu_bytes", lambda gpu: gpus[gpu] * run_bytes(run()))

    return make


def test_cpu_jobs_are_bounded_by_cores_and_by_memory(machine):
    machine(cores=8)
    assert worker_slots([run()], 0) == [None] * 8
    assert worker_slots([run(), run(threads=3)], 0) == [None] * 2
    machine(cores=8, memory=3.9)
    assert worker_slots([run()], 0) == [None] * 3
    assert len(worker_slots([run(size=128)], 0)) > 3
    machine(cores=8, memory=0.5)
    assert worker_slots([run()], 0) == [None]
    assert worker_slots([run()], 0, jobs=5) == [None] * 5


def test_a_machine_that_tells_nothing_of_its_memory_is_bounded_by_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(capacity, "core_count", lambda: 4)
    monkeypatch.setattr(container, "memory_left", lambda: math.inf)
    monkeypatch.setattr(container, "_MEMINFO", tmp_path / "missing")
    assert worker_slots([run()], 0) == [None] * 4
    (tmp_path / "missing").write_text("MemTotal: 99 kB\nMemAvailable:   20000000 kB\n")
    assert len(worker_slots([run()], 0)) == int(20000000 * 1024 // run_bytes(run()))


def test_each_gpu_gets_what_fits(machine):
    machine(cores=16, gpus=(2.5, 1.5, 0.2))
    assert worker_slots([run()], 3) == [0, 0, 1]
    assert worker_slots([run()], 3, jobs=2) == [0, 0]
    machine(cores=16, gpus=(2.5, 2.5))
    assert worker_slots([run()], 2) == [0, 1, 0, 1]
    machine(cores=3, gpus=(2.5, 2.5))
    assert worker_slots([run()], 2) == [0, 1, 0]


def test_one_worker_at_least_where_there_is_most_room(machine):
    machine(cores=16, gpus=(0.1, 0.9))
    assert worker_slots([run()], 2) == [1]
