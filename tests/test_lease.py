import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from fundus_seg.errors import BusyError, LeaseLostError, RunError
from fundus_seg.runs.atomic import TEMPORARY, atomic_path, write_text
from fundus_seg.runs.lease import holder, leased

FOREIGN = {"token": "x", "host": "elsewhere", "machine": "another boot", "pid": 7, "started": "1"}
WRITER = """
    import sys
    from pathlib import Path
    from fundus_seg.runs.lease import leased
    from fundus_seg.runs.atomic import write_text

    folder = Path(sys.argv[1])
    with leased(folder, patience=float(sys.argv[2])):
        write_text(folder / "value", "old")
        print("written", flush=True)
        sys.stdin.readline()
        write_text(folder / "value", "from a paused owner")
"""


@pytest.fixture
def writer(tmp_path):
    """A process that writes, waits for a line, and writes again."""

    def start(patience=60.0):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "run"), str(patience)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, **pipes)
        started.append(process)
        assert process.stdout.readline() == "written\n"
        return process

    started: list[subprocess.Popen] = []
    yield start
    for process in started:
        process.kill()
        process.communicate()


def left(folder, content, age=0.0):
    """A lease that somebody left `age` seconds ago."""
    folder.mkdir()
    (folder / ".lease").write_text(content)
    then = time.time() - age
    os.utime(folder / ".lease", (then, then))


def test_one_at_a_time(tmp_path):
    run = tmp_path / "runs" / "a"
    with leased(run):
        assert holder(run).startswith(f"{os.getpid()} on ")
        with (
            pytest.raises(BusyError, match=rf"a: process {os.getpid()} on .* is writing here; wait, or stop it"),
            leased(run),
        ):
            pass
        write_text(run / "value", "whole")
    assert holder(run) is None
    with leased(run):
        assert (run / "value").read_text() == "whole"


def test_killed_owner_is_followed_at_once(tmp_path, writer):
    process = writer()
    run = tmp_path / "run"
    assert holder(run).startswith(f"{process.pid} on ")
    process.kill()
    process.wait()
    (run / f".value.1{TEMPORARY}").touch()
    with leased(run):
        assert sorted(path.name for path in run.iterdir()) == [".lease", "value"]


def test_a_zombie_holds_nothing(tmp_path, writer):
    process = writer()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, its parent has not asked for its end yet
    assert holder(tmp_path / "run") is None


def test_a_paused_owner_that_wakes_does_not_write(tmp_path, writer):
    process = writer(patience=0.6)
    run = tmp_path / "run"
    time.sleep(1)
    assert holder(run, patience=0.6)  # it shows signs of life
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    with leased(run, patience=0.6):
        write_text(run / "value", "new")
        process.send_signal(signal.SIGCONT)
        _, error = process.communicate("\n")
        assert process.returncode != 0
        assert "LeaseLostError" in error
        assert "another process has taken over; this one stops writing here" in error
        write_text(run / "other", "still ours")
    assert (run / "value").read_text() == "new"
    assert {path.name for path in run.iterdir()} == {".lease", "value", "other"}


@pytest.mark.parametrize("when", ["before it asks", "after it asked"])
def test_overtaken_in_the_middle_of_a_write(tmp_path, monkeypatch, when):
    """The successor comes when the temporary file is whole, before or after the owner asks for its lease."""

    def overtake():
        left = tmp_path / "run" / ".lease"
        os.utime(left, (0, 0))
        monkeypatch.setattr("fundus_seg.runs.lease._runs_here", lambda there: False)
        with leased(tmp_path / "run"):
            write_text(tmp_path / "run" / "value", "new")

    run = tmp_path / "run"
    with pytest.raises(LeaseLostError), leased(run), atomic_path(run / "value") as temporary:
        temporary.write_text("old")
        if when == "before it asks":
            overtake()
        else:
            _after_the_check(monkeypatch, overtake)
    assert (tmp_path / "run" / "value").read_text() == "new"


def _after_the_check(monkeypatch, overtake):
    """Call `overtake` once, when the lease has been asked for and found to be there."""
    from fundus_seg.runs import lease

    mine = lease._Lease._mine

    def asked(self):
        answer = mine(self)
        monkeypatch.setattr(lease._Lease, "_mine", mine)
        overtake()
        return answer

    monkeypatch.setattr(lease._Lease, "_mine", asked)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(FOREIGN),
        *("", "[]", "{", "[" * 100_000, "{}"),
        *(json.dumps({**FOREIGN, **damage}) for damage in ({"pid": None}, {"pid": "../1"}, {"started": []})),
        json.dumps({"machine": "another boot"}),
    ],
)
def test_others_are_judged_by_their_signs_of_life(tmp_path, content):
    left(tmp_path / "run", content)
    with pytest.raises(BusyError), leased(tmp_path / "run"):
        pass
    left(tmp_path / "old", content, age=61)
    with leased(tmp_path / "old"):
        pass
    left(tmp_path / "patient", content, age=61)
    with pytest.raises(BusyError), leased(tmp_path / "patient", patience=100):
        pass


def test_a_lease_of_this_machine_that_says_too_little_is_judged_likewise(tmp_path):
    with leased(tmp_path / "run"):
        content = json.loads((tmp_path / "run" / ".lease").read_text())
    for name in content:
        left(tmp_path / name, json.dumps({key: value for key, value in content.items() if key != name}))
        assert holder(tmp_path / name)
    left(tmp_path / "number", json.dumps({**content, "pid": 10**400}))
    assert holder(tmp_path / "number") is None


@pytest.mark.parametrize("content", [json.dumps(FOREIGN), ""])
def test_a_lease_dated_ahead_keeps_nobody_out(tmp_path, content):
    left(tmp_path / "run", content, age=-3600)
    assert holder(tmp_path / "run") is None
    with leased(tmp_path / "run"):
        assert holder(tmp_path / "run")
    left(tmp_path / "near", content, age=-10)  # clocks differ by so much
    assert holder(tmp_path / "near")


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_deleted_meanwhile_is_told_and_not_made_again(tmp_path, whole):
    run = tmp_path / "run"
    with leased(run):
        if whole:
            shutil.rmtree(run)
        else:
            (run / ".lease").unlink()
        gone = run if whole else run / ".lease"
        with pytest.raises(RunError, match=f"^{gone}: deleted while this process wrote there"):
            write_text(run / "checkpoints" / "value", "ours")
    assert run.exists() is not whole
    assert not (run / "checkpoints").exists()


def test_a_reused_process_number_is_not_the_owner(tmp_path):
    with leased(tmp_path / "run"):
        content = json.loads((tmp_path / "run" / ".lease").read_text())
    left(tmp_path / "same", json.dumps(content))
    assert holder(tmp_path / "same")
    left(tmp_path / "old", json.dumps({**content, "started": "1"}))
    assert holder(tmp_path / "old") is None


def test_an_error_within_is_the_one_that_is_told_and_nobody_holds_it(tmp_path):
    with pytest.raises(ZeroDivisionError), leased(tmp_path / "run"):
        1 / 0
    assert holder(tmp_path / "run") is None


def test_where_no_folder_can_be(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"\.lease: cannot be written .*choose another folder"),
        leased(tmp_path / "file" / "run"),
    ):
        pass


def test_two_at_a_left_lease(tmp_path, monkeypatch):
    """The quicker one sweeps the slower one's temporary file away."""
    left(tmp_path / "run", json.dumps(FOREIGN), age=61)
    fsync, quicker = os.fsync, contextlib.ExitStack()

    def overtaken(handle):
        fsync(handle)
        monkeypatch.setattr(os, "fsync", fsync)
        quicker.enter_context(leased(tmp_path / "run"))

    monkeypatch.setattr(os, "fsync", overtaken)
    with quicker, pytest.raises(BusyError, match=f"process {os.getpid()} on"), leased(tmp_path / "run"):
        pass
