"""Who works on the cells of a grid; here a cell is a path, and the work is light."""

from __future__ import annotations

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
def cells(tmp_path):
    return [tmp_path / name for name in "abcde"]


def test_serial_keeps_the_order(cells):
    assert list(serial(lambda cell: cell.name, cells)) == [(cell, cell.name) for cell in cells]


def test_no_more_workers_than_jobs_and_each_stays_warm(cells):
    outcomes = dict(processes([None, None])(executor_work.give_pid, cells))
    assert set(outcomes) == set(cells)
    assert len(set(outcomes.values())) <= 2
    assert not any(map(alive, outcomes.values()))


def test_no_cells_no_workers():
    assert list(processes([None, None])(executor_work.give_pid, [])) == []


def test_each_worker_sees_the_gpu_of_its_slot(cells, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert set(dict(processes([0, 0, 1])(executor_work.give_gpu, cells)).values()) <= {"4", "7"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert dict(processes([0, 1])(executor_work.give_gpu, cells[:1])) == {cells[0]: "0"}


def test_a_dead_worker_is_replaced_and_its_cell_tried_again(cells):
    outcomes = dict(processes([None])(executor_work.die_once, cells[:2]))
    assert list(outcomes) == cells[:2]
    assert len(set(outcomes.values())) == 2


def test_a_cell_whose_worker_dies_every_time_fails_alone(cells):
    outcomes = dict(processes([None, None])(executor_work.die, cells[:2]))
    assert {outcome.state for outcome in outcomes.values()} == {"failed"}
    assert outcomes[cells[0]].reason.startswith(f"worker died {RETRIES + 1} times")


def test_closed_early_it_leaves_nobody_at_work(tmp_path):
    quick, slow = tmp_path / "quick", tmp_path
    quick.touch()
    running = processes([None, None])(_linger_in_folders, [quick, slow])
    assert next(running)[0] == quick
    (marker,) = eventually(lambda: list(tmp_path.glob("*.pid")))
    assert alive(marker.stem)
    running.close()
    assert not alive(marker.stem)


def _linger_in_folders(cell):
    return executor_work.linger(cell) if cell.is_dir() else True


def test_workers_die_with_a_command_that_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(program), str(tmp_path)], env=path)
    (marker,) = eventually(lambda: list(tmp_path.glob("*.pid")))
    parent.kill()
    parent.wait()
    assert eventually(lambda: not alive(marker.stem))
