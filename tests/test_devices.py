"""One run shared by two processes on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import small_runs
import torch
from small_runs import killed_in_epoch

from fundus_seg.config import resolve_sources
from fundus_seg.data.batches import DomainBatches
from fundus_seg.data.layout import open_root
from fundus_seg.errors import RunError, UsageError
from fundus_seg.models import build_model, scale_photographs
from fundus_seg.seeding import reproducible, seeded
from fundus_seg.torchvision_compat import import_module
from fundus_seg.training import fit, train
from fundus_seg.training.run_data import load_run_data
from fundus_seg.training.task import binary_cross_entropy

settings = partial(small_runs.settings, "train.precision=fp32", "train.devices=2")


@pytest.fixture
def root(draw_root):
    return open_root(draw_root())


def content(run, name="last"):
    return torch.load(run.checkpoint(name), weights_only=True)


def assist_and_keep(fabric, config, root, resume_from):
    """As the second process does, which leaves its weights beside the checkpoints of the first."""
    state = fit_assist(fabric, config, root, resume_from)
    resume_from.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state.network.state_dict(), resume_from.with_name("second.ckpt"))


def assist_and_die(fabric, config, root, resume_from):
    os.kill(os.getpid(), signal.SIGKILL)


def assist_for_ever(fabric, config, root, resume_from):
    (root.path / "pid").write_text(str(os.getpid()))
    signal.pause()


def train_until_killed(config, root, out):
    fit._assist = assist_for_ever
    train(config, root, out)


fit_assist = fit._assist


def test_slices_part_the_batch_and_hold_every_domain_alike(root):
    config = resolve_sources(settings("train.batch_per_domain=4"), root.domains, where=root.path)
    batches = DomainBatches(load_run_data(config, root).sources, config.train, seed=0)
    whole = next(batches.epoch(0))
    parts = [whole.slice(part, 2) for part in range(2)]
    for part in parts:
        assert part.domains.tolist() == [0, 0, 1, 1, 2, 2]
    together = torch.stack([part.images for part in parts], dim=1).flatten(0, 1)
    assert torch.equal(together, whole.images)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batch_per_domain=3"], r"train.batch_per_domain 3 with train.devices 2: .* a multiple of 2"),
        (["data.sources=[B]"], "train.batch_per_domain 2 with one source: .* on each device"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(root, tmp_path, overrides, message):
    with pytest.raises(UsageError, match=message):
        train(settings(*overrides), root, tmp_path)


def test_a_worker_that_may_start_no_process_says_so(root, tmp_path, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(UsageError, match=r"train.devices 2: .*; take the executor serial or ray"):
        train(settings(), root, tmp_path)
    assert not any(tmp_path.rglob("seed-0"))


def test_devices_name_the_run(root):
    assert settings().recipe(all_domains=root.experiment).startswith("devices=2-")


@pytest.mark.slow
def test_a_step_is_that_of_the_slices_mean_gradient(root, tmp_path, monkeypatch):
    """Worked out in this process, slice by slice; and both processes hold the outcome."""
    config = settings("train.epochs=1", "train.steps_per_epoch=1")
    monkeypatch.setattr(fit, "_assist", assist_and_keep)
    run = train(config, root, tmp_path)

    config = resolve_sources(config, root.domains, where=root.path)
    (whole,) = DomainBatches(load_run_data(config, root).sources, config.train, seed=0).epoch(0)
    with reproducible(1):
        with seeded(0, 0, "initialisation"):
            network = build_model(**config.network_spec()).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), lr=config.optim.lr, betas=config.optim.betas, fused=True)
        losses = []
        for part in (whole.slice(0, 2), whole.slice(1, 2)):
            with seeded(0, 0, "epoch"):
                images = scale_photographs(part.images).to(memory_format=torch.channels_last)
                losses.append(binary_cross_entropy(network(images), part.masks))
            (losses[-1].mean() / 2).backward()
        optimizer.step()
    expected = dict(network.named_parameters())
    for weights in (content(run)["model"], torch.load(run.checkpoint("second"), weights_only=True)):
        assert expected.keys() <= weights.keys()
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value.detach(), rtol=0, atol=1e-6, msg=name)
    (row,) = content(run)["history"]
    assert row["loss_disc"] == pytest.approx((losses[0][0] + losses[1][0]).item() / 2, rel=1e-6)


@pytest.mark.slow
def test_the_death_of_a_process_is_told_in_one_line(root, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "_assist", assist_and_die)
    with pytest.raises(RunError, match="one of the 2 processes of the run has ended"):
        train(settings(), root, tmp_path)
    assert not torch.distributed.is_initialized()
    assert "LOCAL_RANK" not in os.environ
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see whether a process runs")
def test_no_process_outlives_the_first(root, tmp_path):
    first = multiprocessing.get_context("spawn").Process(target=train_until_killed, args=(settings(), root, tmp_path))
    first.start()
    pid = root.path / "pid"
    while not (pid.exists() and pid.read_text()):
        first.join(0.1)
        assert first.is_alive()
    first.kill()
    first.join()
    second = Path("/proc") / pid.read_text()
    for _ in range(300):
        if not second.exists() or "State:\tZ" in (second / "status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the second process goes on")


@pytest.mark.slow
@pytest.mark.parametrize("op", ["conv", "depthwise", "tvconv"])
def test_an_interrupted_run_goes_on_to_the_same_bits(root, tmp_path, op):
    config = settings("train.epochs=3", "optim.drop_epochs=[1]", op=op)
    whole = train(config, root, tmp_path / "whole")

    with killed_in_epoch(2):
        train(config, root, tmp_path / "parts")
    assert not multiprocessing.active_children()
    parts = train(config, root, tmp_path / "parts")
    for name in ("last", "best"):
        one, other = content(whole, name)["model"], content(parts, name)["model"]
        assert all(torch.equal(one[key], other[key]) for key in one), name
    losses = [[(row["loss_disc"], row["dice_cup"]) for row in content(run)["history"]] for run in (whole, parts)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "cluster",
    [
        {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train.sh", "SLURM_NTASKS": "4"},
        {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train.sh", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"},
        {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "x"},
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "2"},
    ],
)
def test_a_run_on_one_device_asks_no_cluster_around_it(root, tmp_path, monkeypatch, cluster):
    settings = small_runs.settings("train.epochs=1")
    plain = train(settings, root, tmp_path / "plain")
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    rank_zero = import_module("lightning.fabric.utilities.rank_zero")
    monkeypatch.setattr(rank_zero.rank_zero_only, "rank", 3)  # as Lightning's import takes it from the environment
    run = train(settings, root, tmp_path / "runs")
    assert all(
        torch.equal(a, b) for a, b in zip(*(small_runs.weights(each).values() for each in (run, plain)), strict=True)
    )
    assert rank_zero.rank_zero_only.rank == 0, "loggers are silent elsewhere"
    assert {name: os.environ.get(name) for name in cluster} == cluster
