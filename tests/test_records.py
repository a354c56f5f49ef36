from __future__ import annotations

import errno
import os
import resource
import stat

import pytest
import torch
from small_runs import Lines

from fundus_seg.errors import RunError
from fundus_seg.models.checkpoint import write_checkpoint
from fundus_seg.runs.atomic import atomic_path, write_rows, write_text
from fundus_seg.runs.folder import RunFolder, find_runs, trained_runs


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RunError, match="No space left on device"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_the_permissions_of_new_files_and_the_process_s_umask_is_never_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("another thread would make files that all may write"))
    write_text(tmp_path / "file", "ours")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_names_as_long_as_the_system_takes_them(tmp_path):
    write_text(tmp_path / ("n" * 255), "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]


def test_a_full_disk_leaves_the_old_checkpoint_and_is_told_in_the_system_s_words(tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(RunError, match=r"last\.ckpt: cannot be written \(File too large\); make room"):
            write_checkpoint(path, {"epoch": 2, "model": torch.zeros(2**16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_rows_keep_every_digit_and_leave_nan_empty(tmp_path):
    write_rows(tmp_path / "rows.csv", [{"a": 0.1 + 0.2, "b": float("nan")}])
    assert (tmp_path / "rows.csv").read_text() == "a,b\n0.30000000000000004,\n"


def test_find_runs_gives_each_run_once(tmp_path):
    for seed in (0, 1):
        RunFolder(tmp_path / "paper/A/tvconv" / f"seed-{seed}").write_config({"inputs": {}})
    found = find_runs([tmp_path, tmp_path / "paper/A/tvconv/seed-1"])
    assert [run.path.name for run in found] == ["seed-0", "seed-1"]


def test_find_runs_refuses_what_is_not_there(tmp_path):
    with pytest.raises(RunError, match="no such folder"):
        find_runs([tmp_path / "runs"])
    with pytest.raises(RunError, match="no run below"):
        find_runs([tmp_path])


def test_untrained_runs_are_named_and_left_out(tmp_path):
    for seed in (0, 1):
        RunFolder(tmp_path / f"seed-{seed}").write_config({"inputs": {}})
    with pytest.raises(RunError, match="seed-0: not trained to its end"):
        trained_runs([tmp_path])
    RunFolder(tmp_path / "seed-1").mark("TRAINED")

    progress = Lines()
    assert [run.path.name for run in trained_runs([tmp_path], progress=progress)] == ["seed-1"]
    assert progress.lines == [
        f"left out: 1 run, not trained to the end: {tmp_path / 'seed-0'}; "
        "the same `fundus-seg train` command goes on with it"
    ]


def test_foreign_config_is_refused(tmp_path):
    run = RunFolder(tmp_path)
    run.config.write_text("a: 1")
    with pytest.raises(RunError, match="not written by a run"):
        run.read_config()
    run.config.write_text("a: [")
    with pytest.raises(RunError, match="cannot be read"):
        run.read_config()
