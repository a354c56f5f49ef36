"""The leave-one-domain-out grid: what it plans, where each cell stands, what fails and what goes on."""

from __future__ import annotations

import errno
import re
import sys
from functools import partial

import pytest
from typer.testing import CliRunner

from fundus_seg import plugins
from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError, ProtocolError, RunError, UsageError
from fundus_seg.experiments import work
from fundus_seg.experiments.estimate import estimate
from fundus_seg.experiments.executors import serial
from fundus_seg.experiments.grid import prepare, run_grid
from fundus_seg.experiments.grid_run import Outcome, failure, forgive, mark_failed, settled, status
from fundus_seg.experiments.leave_one_out import plan
from fundus_seg.experiments.work import run_cell
from fundus_seg.reporting.overview import overview
from fundus_seg.runs.lease import leased
from fundus_seg_cli.main import app


@pytest.fixture
def root(draw_root):
    return open_root(draw_root())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs"


def cells_of(root, out, *, ops=("conv",), seeds=(0,), holdouts=("A",), **options):
    return plan(root, out, ops=ops, seeds=seeds, holdouts=holdouts, config="tiny", **options)


def test_the_first_table_is_planned_first(root, out):
    cells = cells_of(root, out, ops=["conv", "tvconv"], seeds=[0, 1], holdouts=None)
    named = [(cell.config.seed, cell.config.holdout, cell.config.model.op) for cell in cells]
    assert named == [(seed, holdout, op) for seed in (0, 1) for holdout in "ABCD" for op in ("conv", "tvconv")]
    assert cells[0].config.data.sources == ("B", "C", "D")
    assert {cell.config.train.threads for cell in cells} == {1}
    assert len({cell.folder.path for cell in cells}) == len(cells)


def test_every_combination_of_varied_settings_is_a_column(root, out):
    cells = cells_of(root, out, vary=["optim.lr=1e-3,3e-4", "optim.drop_epochs=[1],[1,2]"])
    assert [(cell.config.optim.lr, cell.config.optim.drop_epochs) for cell in cells] == [
        (lr, drops) for lr in (1e-3, 3e-4) for drops in ((1,), (1, 2))
    ]
    assert len({cell.folder.path.parent for cell in cells}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": ["tvcnov"]}, "did you mean 'tvconv'"),
        ({"holdouts": ["A", "E"]}, "unknown domain 'E'"),
        ({"vary": ["optim.lrr=1,2"]}, "did you mean 'optim.lr'"),
        ({"vary": ["optim.lr"]}, "write it as section.key=value,value"),
        ({"vary": ["seed=1,2"]}, "seed: a grid takes it from --runs and --seed-from"),
        ({"overrides": ["model.op=conv"]}, "model.op: a grid takes it from --ops"),
        ({"vary": ["scoring.threshold=0.5,0.75"]}, "a table never mixes scoring protocols"),
        ({"vary": ["train.threads=1,2"]}, "2 cells of this grid would be the one run"),
        ({"ops": ["conv", "conv"]}, "2 cells of this grid would be the one run"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(root, out, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        cells_of(root, out, **options)
    assert not out.exists()


def test_where_a_cell_stands(root, out):
    (cell,) = cells_of(root, out)
    assert (status(cell), settled(cell)) == ("missing", None)
    with leased(cell.folder.path):
        assert status(cell) == "running"
        assert run_cell(cell).state == "busy"
        mark_failed(cell, Outcome("failed", "of another copy"))
        assert not cell.folder.has("FAILED")
    cell.folder.config.touch()
    assert status(cell) == "started"
    mark_failed(cell, Outcome("failed", "the reason", "a traceback\nof lines"))
    assert (status(cell), failure(cell)) == ("failed", "the reason")
    assert settled(cell) == run_cell(cell) == Outcome("failed", "the reason")
    mark_failed(cell, Outcome("failed", "of another copy"))
    assert (cell.folder.path / "FAILED").read_text() == "the reason\na traceback\nof lines"
    forgive(cell)
    cell.folder.config.unlink()
    assert run_cell(cell) == Outcome("done")
    assert (status(cell), settled(cell)) == ("done", Outcome("done"))
    (cell.folder.path / "DONE").unlink()
    assert status(cell) == "trained"


def test_a_run_that_is_there_keeps_its_threads(root, out):
    (cell,) = cells_of(root, out, overrides=["train.threads=2", "train.epochs=1"])
    assert run_cell(cell) == Outcome("done")
    (cell.folder.path / "DONE").unlink()
    (again,) = cells_of(root, out, overrides=["train.epochs=1"])
    assert again.folder == cell.folder
    assert run_cell(again) == Outcome("done")


def test_a_diverging_run_fails_and_the_rest_go_on(root, out):
    cells = cells_of(root, out, vary=["optim.lr=1e30,1e-3"], overrides=["train.steps_per_epoch=3"])
    outcomes = dict(run_grid(cells, serial))
    assert [outcomes[cell].state for cell in cells] == ["failed", "done"]
    assert "the loss is no longer finite" in outcomes[cells[0]].reason
    assert "Traceback" not in (cells[0].folder.path / "FAILED").read_text()
    at_work = []

    def watched(work, cells):
        at_work.extend(cells)
        return serial(work, cells)

    assert dict(run_grid(cells, watched)) == outcomes
    assert at_work == []
    forgive(cells[0])
    assert dict(run_grid(cells, watched)) == outcomes
    assert at_work == [cells[0]]


def test_a_full_disk_fails_the_run_with_its_reason(root, out, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    (cell,) = cells_of(root, out)
    ((_, outcome),) = run_grid([cell], serial)
    assert outcome.state == "failed"
    assert "No space left on device" in outcome.reason
    assert status(cell) == "failed"


def test_an_error_that_nobody_foresaw_keeps_its_traceback(root, out, monkeypatch):
    monkeypatch.setattr(work, "train", lambda *_, **__: {}["nothing"])
    (cell,) = cells_of(root, out)
    ((_, outcome),) = run_grid([cell], serial)
    assert outcome.reason == "KeyError: 'nothing'"
    assert "Traceback" in (cell.folder.path / "FAILED").read_text()


def test_photographs_are_looked_at_before_anything_runs(root, out):
    damaged = next((root.path / "Domain3/train/ROIs/image").iterdir())
    damaged.write_bytes(b"no photograph")
    with pytest.raises(DataError, match=damaged.name):
        prepare(cells_of(root, out))
    seen, unseen = cells_of(root, out, holdouts=["A"], overrides=["data.sources=[C]"]) + cells_of(
        root, out, holdouts=["A"], overrides=["data.sources=[B]"]
    )
    faults = prepare([seen, unseen])
    assert list(faults) == [seen]
    assert damaged.name in faults[seen].reason
    assert not out.exists()


def test_photographs_that_became_unreadable_stop_only_what_is_left(root, out):
    done, left = cells_of(root, out, seeds=[0, 1], overrides=["data.sources=[C]"])
    run_cell(done)
    for damaged in list((root.path / "Domain3/train/ROIs/image").iterdir())[:2]:
        damaged.write_bytes(b"no photograph")
    assert prepare([done]) == {}
    faults = prepare([done, left])
    assert list(faults) == [left]
    assert re.fullmatch("2 .*:", faults[left].reason)
    assert damaged.name in faults[left].details
    with pytest.raises(DataError, match=damaged.name):
        prepare([left])


@pytest.fixture
def write_plugin(tmp_path, monkeypatch):
    """A function that writes the loss `grid_loss:loss`, which this process has then not loaded."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(factor):
        monkeypatch.setattr(plugins, "_loaded", {})
        monkeypatch.setattr(plugins, "_digests", {})
        sys.modules.pop("grid_loss", None)
        text = (
            f"def loss(logits, masks):\n    return {factor} * ((logits.sigmoid() - masks) ** 2).mean(dim=(0, 2, 3))\n"
        )
        (tmp_path / "grid_loss.py").write_text(text)

    yield write
    sys.modules.pop("grid_loss", None)


def test_runs_of_other_inputs_are_refused_before_anything_runs(root, out, write_plugin):
    write_plugin(1)
    overrides = ["train.loss=grid_loss:loss"]
    (done,) = cells_of(root, out, overrides=overrides)
    assert run_cell(done) == Outcome("done")
    cells = cells_of(root, out, ops=["conv", "tvconv"], overrides=overrides)
    assert prepare(cells) == {}
    with pytest.raises(RunError, match="begun without --probe-holdout"):
        prepare(cells_of(root, out, overrides=overrides, probe=True))
    write_plugin(2)
    options = ["--data", root.path, "--out", out, "--config", "tiny", "--runs", "1", "--holdouts", "A"]
    options += ["--ops", "tvconv,conv", "--set", *overrides, "--executor", "serial"]
    refused = CliRunner().invoke(app, ["benchmark", *map(str, options)])
    assert isinstance(refused.exception, RunError)
    assert re.search(r"conv.*seed-0: holds another run \(inputs\.train\.loss: \w+ there, ", str(refused.exception))
    write_plugin(1)
    changed, *_ = (root.path / "Domain2/train/ROIs/image").iterdir()
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(RunError, match=r"holds another run \(inputs\.B/train: "):
        prepare(cells)
    assert [status(cell) for cell in cells] == ["done", "missing"]


def test_cells_of_another_process_are_waited_for(root, out):
    cells = cells_of(root, out, ops=["conv", "tvconv"])
    theirs = leased(cells[0].folder.path)
    theirs.__enter__()
    order = []
    for cell, outcome in run_grid(cells, serial):
        order.append((cell.config.model.op, outcome.state))
        if cell is cells[1]:
            theirs.__exit__(None, None, None)
    assert order == [("tvconv", "done"), ("conv", "done")]


def test_dry_run_lists_and_estimates(root, out):
    cells = cells_of(root, out, ops=["conv", "tvconv"], holdouts=["A", "B"])
    table = overview(cells, jobs=2)
    assert table.notes == ("no finished run of conv, tvconv to estimate from",)
    run_cell(cells[0])
    metrics = cells[0].folder.metrics
    metrics.write_text("epoch,seconds\n1,3600\n2,3600\n")
    cost = estimate(cells, cells[1:])
    assert (cost.cells, cost.seconds, cost.unknown) == (3, 7200, ("tvconv",))
    assert cost.bytes == sum(path.stat().st_size for path in cells[0].folder.path.rglob("*") if path.is_file())
    table = overview(cells, jobs=2)
    assert table.title == "4 runs: 1 done, 3 missing"
    assert "about 1 h 0 min of training with 2 at a time" in table.notes[0]
    assert table.rows[0] == ("A", "conv", "0", "done", "2/2", "")
    assert "about 0 h 40 min of training with 3 at a time" in overview(cells, jobs=8).notes[0]
    mark_failed(cells[2], Outcome("failed", "the reason"))
    assert overview(cells, jobs=8).notes == ("no finished run of tvconv to estimate from",)
    assert "3 runs left: about" in overview(cells, jobs=8, retry_failed=True).notes[0]


def test_damaged_scores_hide_no_table_and_are_made_again(root, out, monkeypatch):
    options = ["--data", root.path, "--out", out, "--config", "tiny", "--runs", "1", "--holdouts", "A"]
    options += ["--ops", "conv,tvconv", "--executor", "serial", "--format", "markdown"]
    call = partial(CliRunner().invoke, app, ["benchmark", *map(str, options)])
    first = call()
    assert first.exception is None
    cells = cells_of(root, out, ops=["conv", "tvconv"])
    whole = cells[0].evaluation.read_bytes()
    cells[0].evaluation.write_bytes(whole[: len(whole) // 2])
    second = call()
    assert "| tvconv |" in second.stdout
    assert "1 of 2 runs failed" in str(second.exception)
    assert cells[0].evaluation.name in str(second.exception)
    third = call()
    assert (third.exception, third.stdout) == (None, first.stdout)
    assert cells[0].evaluation.read_bytes() == whole

    def refuse(*_):
        raise ProtocolError("not in one table")

    cells[0].evaluation.write_bytes(b"")
    monkeypatch.setattr("fundus_seg_cli.benchmark._print_tables", refuse)
    fourth = call()
    assert isinstance(fourth.exception, ProtocolError)
    assert "1 of 2 runs failed" in fourth.stderr


def test_workers_refuse_runs_over_several_devices(root, out):
    options = ["--data", root.path, "--out", out, "--config", "tiny", "--set", "train.devices=2"]
    refused = CliRunner().invoke(app, ["benchmark", *map(str, options)]).exception
    assert isinstance(refused, UsageError)
    assert "train.devices 2 with --executor processes" in str(refused)
    assert not out.exists()


def test_the_command_prints_the_table_of_what_is_done_then_what_failed(root, out, tmp_path):
    options = ["--data", root.path, "--out", out, "--config", "tiny", "--runs", "1", "--holdouts", "A", "--ops", "conv"]
    options += ["--vary", "optim.lr=1e30,1e-3,1e-4", "--set", "train.steps_per_epoch=3", "--executor", "serial"]
    call = partial(CliRunner().invoke, app)
    done = call(["benchmark", *map(str, options), "--format", "markdown", "--plots", str(tmp_path / "plots")])
    assert re.search(r"\| metric \| structure \| unseen \| conv-lr=\S+ \| conv-steps\S+ \|\n", done.stdout)
    assert "| all | all |" in done.stdout
    assert (tmp_path / "plots" / "boxes-dsc.png").exists()
    assert isinstance(done.exception, RunError)
    assert str(done.exception).startswith("1 of 3 runs failed; --retry-failed takes them up again:\n  A conv-lr=1e+30")
    listed = call(["benchmark", *map(str, options), "--format", "markdown", "--dry-run"]).stdout
    assert "3 runs: 1 failed, 2 done" in listed
    assert "the loss is no longer finite" in listed
    assert "nothing left to run" in listed
    assert isinstance(call(["benchmark", *map(str, options), "--retry-failed"]).exception, RunError)
