"""Who works on the runs of a grid; here a run is a path, and the work is light."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import executor_work
import pytest

from fundus_seg.experiments.executors import RETRIES, processes, serial

PROGRAM = """
import sys
from pathlib import Path
import executor_work
from fundus_seg.experiments.executors import processes

if __name__ == "__main__":
    list(processes([None])(executor_work.linger, [Path(sys.argv[1])]))
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(true, seconds=60.0):
    limit = time.monotonic() + seconds
    while not (value := true()) and time.monotonic() < limit:
        time.sleep(0.05)
    return value


@pytest.fixture
def runs(tmp_path):
    return [tmp_path / name for name in "abcde"]


def test_serial_keeps_the_order(runs):
    assert list(serial(lambda run: run.name, runs)) == [(run, run.name) for run in runs]


def test_no_more_workers_than_jobs_and_each_stays_warm(runs):
    outcomes = dict(processes([None, None])(executor_work.give_pid, runs))
    assert set(outcomes) == set(runs)
    assert len(set(outcomes.values())) <= 2
    assert not any(map(alive, outcomes.values()))


def test_no_runs_no_workers():
    assert list(processes([None, None])(executor_work.give_pid, [])) == []


def test_each_worker_sees_the_gpu_of_its_slot(runs, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert set(dict(processes([0, 0, 1])(executor_work.give_gpu, runs)).values()) <= {"4", "7"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert dict(processes([0, 1])(executor_work.give_gpu, runs[:1])) == {runs[0]: "0"}


def test_a_dead_worker_is_replaced_and_its_run_tried_again(runs):
    outcomes = dict(processes([None])(executor_work.die_once, runs[:2]))
    assert list(outcomes) == runs[:2]
    assert len(set(outcomes.values())) == 2


def test_a_run_whose_worker_dies_every_time_fails_alone(runs):
    outcomes = dict(processes([None, None])(executor_work.die, runs[:2]))
    assert {outcome.state for outcome in outcomes.values()} == {"failed"}
    assert outcomes[runs[0]].reason.startswith(f"its worker died {RETRIES + 1} times")


def test_closed_early_it_leaves_nobody_at_work(tmp_path):
    quick, slow = tmp_path / "quick", tmp_path
    quick.touch()
    running = processes([None, None])(_linger_in_folders, [quick, slow])
    assert next(running)[0] == quick
    (marker,) = eventually(lambda: list(tmp_path.glob("*.pid")))
    assert alive(marker.stem)
    running.close()
    assert not alive(marker.stem)


def _linger_in_folders(run):
    return executor_work.linger(run) if run.is_dir() else True


def test_workers_die_with_a_command_that_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(program), str(tmp_path)], env=path)
    (marker,) = eventually(lambda: list(tmp_path.glob("*.pid")))
    parent.kill()
    parent.wait()
    assert eventually(lambda: not alive(marker.stem))


def test_workers_run_no_file_of_the_current_directory(runs, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    for name in ("multiprocessing", "pickle", "json", "torch"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(here)
    outcomes = list(processes([None])(executor_work.give_pid, runs[:1]))
    assert outcomes[0][1] != os.getpid()
    assert not (tmp_path / "ran").exists()
    assert "PYTHONSAFEPATH" not in os.environ
