"""The leave-one-domain-out grid: what it plans, where each run stands, what fails and what goes on."""

from __future__ import annotations

import errno
import re
import sys
from contextlib import nullcontext

import pytest
from small_runs import Lines

from fundus_seg import plugins
from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError, ProtocolError, RunError, UsageError
from fundus_seg.experiments import choose_executor, run_experiment
from fundus_seg.experiments.estimate import estimate
from fundus_seg.experiments.executors import serial
from fundus_seg.experiments.grid import prepare, run_grid
from fundus_seg.experiments.grid_run import Outcome, clear_failure, failure_reason, record_failure, settled, status
from fundus_seg.experiments.leave_one_out import plan
from fundus_seg.experiments.work import complete_run
from fundus_seg.reporting.overview import overview_table
from fundus_seg.runs.lease import leased


@pytest.fixture
def root(draw_root):
    return open_root(draw_root())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs"


def plan_runs(root, out, *, ops=("conv",), seeds=(0,), holdouts=("A",), **options):
    return plan(root, out, ops=ops, seeds=seeds, holdouts=holdouts, config="tiny", **options)


def test_the_first_table_is_planned_first(root, out):
    runs = plan_runs(root, out, ops=["conv", "tvconv"], seeds=[0, 1], holdouts=None)
    named = [(run.config.seed, run.config.holdout, run.config.model.op) for run in runs]
    assert named == [(seed, holdout, op) for seed in (0, 1) for holdout in "ABCD" for op in ("conv", "tvconv")]
    assert runs[0].config.data.sources == ("B", "C", "D")
    assert {run.config.train.threads for run in runs} == {1}
    assert len({run.folder.path for run in runs}) == len(runs)


def test_every_combination_of_varied_settings_is_a_column(root, out):
    runs = plan_runs(root, out, vary=["optim.lr=1e-3,3e-4", "optim.drop_epochs=[1],[1,2]"])
    assert [(run.config.optim.lr, run.config.optim.drop_epochs) for run in runs] == [
        (lr, drops) for lr in (1e-3, 3e-4) for drops in ((1,), (1, 2))
    ]
    assert len({run.folder.path.parent for run in runs}) == 4


def test_a_setting_makes_no_further_run_where_it_has_no_effect(root, out):
    told = Lines()
    vary = ["train.average=none,ema", "train.ema_decay=0.9,0.99"]
    runs = plan_runs(root, out, vary=vary, progress=told)
    assert [(run.config.train.average, run.config.train.ema_decay) for run in runs] == [
        ("none", 0.9),
        ("ema", 0.9),
        ("ema", 0.99),
    ]
    assert told.lines == ["train.ema_decay: no effect beside the other settings of 1 run, planned once already"]
    runs = plan_runs(root, out, ops=["conv", "tvconv"], vary=["model.generator_channels=4,8"])
    assert [run.config.model.op for run in runs] == ["conv", "tvconv", "tvconv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": ["tvcnov"]}, "did you mean 'tvconv'"),
        ({"holdouts": ["A", "E"]}, "unknown domain 'E'"),
        ({"vary": ["optim.lrr=1,2"]}, "did you mean 'optim.lr'"),
        ({"vary": ["optim.lr"]}, "write it as section.key=value,value"),
        ({"vary": ["seed=1,2"]}, "seed: a whole experiment takes it from --runs and --seed-from"),
        ({"overrides": ["model.op=conv"]}, "model.op: a whole experiment takes it from --ops"),
        ({"vary": ["scoring.threshold=0.5,0.75"]}, "a table never mixes scoring protocols"),
        ({"vary": ["train.threads=1,2"]}, "2 runs of this experiment would share the folder"),
        ({"ops": ["conv", "conv"]}, "2 runs of this experiment would share the folder"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(root, out, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        plan_runs(root, out, **options)
    assert not out.exists()


def test_where_a_run_stands(root, out):
    (run,) = plan_runs(root, out)
    assert (status(run), settled(run)) == ("missing", None)
    with leased(run.folder.path):
        assert status(run) == "running"
        assert complete_run(run).state == "busy"
        record_failure(run, Outcome("failed", "of another copy"))
        assert not run.folder.has("FAILED")
    run.folder.config.touch()
    assert status(run) == "started"
    record_failure(run, Outcome("failed", "the reason", "a traceback\nof lines"))
    assert (status(run), failure_reason(run)) == ("failed", "the reason")
    assert settled(run) == complete_run(run) == Outcome("failed", "the reason")
    record_failure(run, Outcome("failed", "of another copy"))
    assert (run.folder.path / "FAILED").read_text() == "the reason\na traceback\nof lines"
    clear_failure(run)
    run.folder.config.unlink()
    assert complete_run(run) == Outcome("done")
    assert (status(run), settled(run)) == ("done", Outcome("done"))
    (run.folder.path / "DONE").unlink()
    assert status(run) == "trained"


def test_a_run_that_is_there_keeps_its_threads(root, out):
    (run,) = plan_runs(root, out, overrides=["train.threads=2", "train.epochs=1"])
    assert complete_run(run) == Outcome("done")
    (run.folder.path / "DONE").unlink()
    (again,) = plan_runs(root, out, overrides=["train.epochs=1"])
    assert again.folder == run.folder
    assert complete_run(again) == Outcome("done")


def test_a_diverging_run_fails_and_the_rest_go_on(root, out):
    runs = plan_runs(root, out, vary=["optim.lr=1e30,1e-3"], overrides=["train.steps_per_epoch=3"])
    outcomes = dict(run_grid(runs, serial))
    assert [outcomes[run].state for run in runs] == ["failed", "done"]
    assert "the loss is no longer finite" in outcomes[runs[0]].reason
    assert "Traceback" not in (runs[0].folder.path / "FAILED").read_text()
    at_work = []

    def watched(work, runs):
        at_work.extend(runs)
        return serial(work, runs)

    assert dict(run_grid(runs, watched)) == outcomes
    assert at_work == []
    clear_failure(runs[0])
    assert dict(run_grid(runs, watched)) == outcomes
    assert at_work == [runs[0]]


def test_a_full_disk_fails_the_run_with_its_reason(root, out, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    (run,) = plan_runs(root, out)
    ((_, outcome),) = run_grid([run], serial)
    assert outcome.state == "failed"
    assert "No space left on device" in outcome.reason
    assert status(run) == "failed"


def test_an_error_that_nobody_foresaw_keeps_its_traceback(root, out, monkeypatch):
    monkeypatch.setattr("fundus_seg.experiments.work.train", lambda *_, **__: {}["nothing"])
    (run,) = plan_runs(root, out)
    ((_, outcome),) = run_grid([run], serial)
    assert outcome.reason == "KeyError: 'nothing'"
    assert "Traceback" in (run.folder.path / "FAILED").read_text()


def test_photographs_are_looked_at_before_anything_runs(root, out):
    damaged = next((root.path / "Domain3/train/ROIs/image").iterdir())
    damaged.write_bytes(b"no photograph")
    with pytest.raises(DataError, match=damaged.name):
        prepare(plan_runs(root, out))
    seen, unseen = plan_runs(root, out, holdouts=["A"], overrides=["data.sources=[C]"]) + plan_runs(
        root, out, holdouts=["A"], overrides=["data.sources=[B]"]
    )
    faults = prepare([seen, unseen])
    assert list(faults) == [seen]
    assert damaged.name in faults[seen].reason
    assert not out.exists()


def test_photographs_that_became_unreadable_stop_only_what_is_left(root, out):
    done, left = plan_runs(root, out, seeds=[0, 1], overrides=["data.sources=[C]"])
    complete_run(done)
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


def test_runs_of_other_inputs_are_refused_before_anything_runs(root, out, write_plugin, command):
    write_plugin(1)
    overrides = ["train.loss=grid_loss:loss"]
    (done,) = plan_runs(root, out, overrides=overrides)
    assert complete_run(done) == Outcome("done")
    runs = plan_runs(root, out, ops=["conv", "tvconv"], overrides=overrides)
    assert prepare(runs) == {}
    with pytest.raises(RunError, match="begun without --probe-holdout"):
        prepare(plan_runs(root, out, overrides=overrides, probe=True))
    write_plugin(2)
    options = ["--data", root.path, "--out", out, "--config", "tiny", "--runs", "1", "--holdouts", "A"]
    options += ["--ops", "tvconv,conv", "--set", *overrides, "--executor", "serial"]
    refused = command("benchmark", *options, code=1).err
    assert re.search(r"conv.*seed-0: holds another run \(inputs\.train\.loss: \w+ there, ", refused)
    write_plugin(1)
    changed, *_ = (root.path / "Domain2/train/ROIs/image").iterdir()
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(RunError, match=r"holds another run \(inputs\.B/train: "):
        prepare(runs)
    assert [status(run) for run in runs] == ["done", "missing"]


def test_runs_of_another_process_are_waited_for(root, out):
    runs = plan_runs(root, out, ops=["conv", "tvconv"])
    theirs = leased(runs[0].folder.path)
    theirs.__enter__()
    order = []
    for run, outcome in run_grid(runs, serial):
        order.append((run.config.model.op, outcome.state))
        if run is runs[1]:
            theirs.__exit__(None, None, None)
    assert order == [("tvconv", "done"), ("conv", "done")]


def test_dry_run_lists_and_estimates(root, out):
    runs = plan_runs(root, out, ops=["conv", "tvconv"], holdouts=["A", "B"])
    table = overview_table(runs, jobs=2).layout
    assert table.notes == ("no finished run of conv, tvconv to estimate from",)
    complete_run(runs[0])
    metrics = runs[0].folder.metrics
    metrics.write_text("epoch,seconds\n1,3600\n2,3600\n")
    cost = estimate(runs, runs[1:])
    assert (cost.runs, cost.seconds, cost.unknown) == (3, 7200, ("tvconv",))
    assert cost.bytes == sum(path.stat().st_size for path in runs[0].folder.path.rglob("*") if path.is_file())
    table = overview_table(runs, jobs=2).layout
    assert table.title == "4 runs: 1 done, 3 missing"
    assert overview_table(runs[:1], jobs=2).layout.title == "1 run: 1 done"
    assert "about 1 h 0 min of training with 2 at a time" in table.notes[0]
    assert table.rows[0] == ("A", "conv", "0", "done", "2/2", "")
    frame = overview_table(runs, jobs=2).frame
    assert frame[["holdout", "operator", "recipe", "status", "epochs"]].iloc[0].tolist() == ["A", "conv", "", "done", 2]
    assert "about 0 h 40 min of training with 3 at a time" in overview_table(runs, jobs=8).layout.notes[0]
    record_failure(runs[2], Outcome("failed", "the reason"))
    assert overview_table(runs, jobs=8).layout.notes == ("no finished run of tvconv to estimate from",)
    assert "3 runs left: about" in overview_table(runs, jobs=8, retry_failed=True).layout.notes[0]


def test_damaged_scores_hide_no_table_and_are_made_again(root, out, command, monkeypatch):
    options = ["--data", root.path, "--out", out, "--config", "tiny", "--runs", "1", "--holdouts", "A"]
    options += ["--ops", "conv,tvconv", "--executor", "serial", "--format", "markdown"]
    first = command("benchmark", *options)
    runs = plan_runs(root, out, ops=["conv", "tvconv"])
    whole = runs[0].evaluation.read_bytes()
    runs[0].evaluation.write_bytes(whole[: len(whole) // 2])
    second = command("benchmark", *options, code=1)
    assert "| tvconv |" in second.out
    assert "error: 1 of 2 runs failed" in second.err
    assert runs[0].evaluation.name in second.err
    assert command("benchmark", *options).out == first.out
    assert runs[0].evaluation.read_bytes() == whole

    def refuse(*_):
        raise ProtocolError("not in one table")

    runs[0].evaluation.write_bytes(b"")
    monkeypatch.setattr("fundus_seg.reporting.reports.score_table", refuse)
    fourth = command("benchmark", *options, code=1).err
    assert "1 of 2 runs failed" in fourth
    assert fourth.endswith("error: not in one table\n")


def test_workers_refuse_runs_over_several_devices(root, out):
    runs = plan_runs(root, out, overrides=["train.devices=2"])
    with pytest.raises(UsageError, match=r"train\.devices 2 with --executor processes"):
        choose_executor("processes", runs)
    assert choose_executor("serial", runs) is serial


def test_an_experiment_gives_its_scores_and_its_failures_in_the_order_of_the_plan(root, out):
    runs = plan_runs(root, out, vary=["optim.lr=1e30,1e-3"], overrides=["train.steps_per_epoch=3"])
    told = []
    result = run_experiment(runs, serial, watch=nullcontext(lambda run, outcome: told.append((run, outcome.state))))
    assert told == [(runs[0], "failed"), (runs[1], "done")]
    assert [failure.run for failure in result.failures] == [runs[0]]
    assert [evaluation.path for evaluation in result.evaluations] == [runs[1].evaluation]
    with pytest.raises(
        RunError,
        match=r"^1 of 2 runs failed; .*\n  A conv lr=1e30 seed 0: .*conv-lr=1e\+30.* the loss is no longer finite",
    ):
        result.check()
    again = run_experiment(runs, serial)
    assert [failure.reason for failure in again.failures] == [failure.reason for failure in result.failures]
    (runs[0].folder.path / "FAILED").write_text("another reason")
    (failure,) = run_experiment(runs, serial, retry_failed=True).failures
    assert "the loss is no longer finite" in failure.reason
    run_experiment(runs[1:], serial).check()


def test_the_command_prints_the_table_of_what_is_done_then_what_failed(root, out, tmp_path, command):
    options = ["--data", root.path, "--out", out, "--config", "tiny", "--runs", "1", "--holdouts", "A", "--ops", "conv"]
    options += ["--vary", "optim.lr=1e30,1e-3,1e-4", "--set", "train.steps_per_epoch=3", "--executor", "serial"]
    done = command("benchmark", *options, "--format", "markdown", "--plots", tmp_path / "plots", code=1)
    assert re.search(r"\| metric \| structure \| unseen \| mean-mask \| conv lr=1e-4 \| conv lr=1e-3 \|\n", done.out)
    assert "| all | all |" in done.out
    assert (tmp_path / "plots" / "boxes-dsc.png").exists()
    assert "error: 1 of 3 runs failed; --retry-failed takes them up again:\n  A conv lr=1e30 seed 0: " in done.err
    listed = command("benchmark", *options, "--format", "markdown", "--dry-run").out
    assert "3 runs: 1 failed, 2 done" in listed
    assert "| A | conv lr=1e-3 | 0 | done | 2/2 |" in listed
    assert "- settings of all runs that differ from their preset: train.steps_per_epoch=3\n" in listed
    assert "the loss is no longer finite" in listed
    assert "nothing left to run" in listed
    command("benchmark", *options, "--retry-failed", code=1)


def test_existing_runs_are_checked_without_asking_git_for_the_commit(root, out, monkeypatch):
    runs = plan_runs(root, out, seeds=[0, 1], overrides=["train.epochs=1"])
    run_experiment(runs, serial).check()
    monkeypatch.setattr("fundus_seg.runs.provenance._commit", None)
    assert prepare(runs) == {}
