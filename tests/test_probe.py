"""The probe of the holdout: an oracle beside a run whose own bits it does not touch."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import metrics, one_of, settings, weights

from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError, RunError
from fundus_seg.runs.folder import find_runs
from fundus_seg.training import fit, probe, train
from fundus_seg.training.probe import HoldoutProbe


@pytest.fixture
def root(draw_root):
    return open_root(draw_root())


def state(run, name):
    return {key: value.numpy().tobytes() for key, value in weights(run, name).items()}


def probed(root, out, *overrides):
    return train(settings(*overrides), root, out, probe=True)


def test_a_run_is_the_same_to_the_bit_with_and_without_a_probe(root, tmp_path):
    overrides = ("train.epochs=3", "train.steps_per_epoch=3")
    plain, watched = (
        train(settings(*overrides), root, tmp_path / "plain"),
        probed(root, tmp_path / "probed", *overrides),
    )
    assert metrics(watched) == metrics(plain)
    assert state(watched, "last") == state(plain, "last")
    assert watched.checkpoint("best").read_bytes() == plain.checkpoint("best").read_bytes()
    assert watched.path.relative_to(tmp_path / "probed") == plain.path.relative_to(tmp_path / "plain")
    assert [run.read_config()["provenance"]["probed"] for run in (plain, watched)] == [False, True]
    assert not plain.checkpoint("oracle").exists()


def test_the_oracle_is_what_selection_on_the_holdout_picks(root, tmp_path):
    """The same run with selection `oracle`: its Dice a row an epoch, its `best`."""
    chosen = train(settings("train.epochs=3", "train.selection=oracle"), root, tmp_path / "chosen")
    watched = probed(root, tmp_path / "probed", "train.epochs=3")
    with watched.probe.open() as file:
        rows = list(csv.DictReader(file))
    keys = ("epoch", "dice_disc", "dice_cup")
    assert rows == [{key: row[key] for key in keys} for row in metrics(chosen)]
    assert watched.checkpoint("oracle").read_bytes() == chosen.checkpoint("best").read_bytes()


def test_the_first_maximum_is_kept(root, tmp_path, monkeypatch):
    values = iter([0.1, 0.3, 0.3])
    monkeypatch.setattr(probe, "validation_dice", lambda *_, **__: dict.fromkeys(("disc", "cup"), next(values)))
    run = probed(root, tmp_path, "train.epochs=3")
    assert torch.load(run.checkpoint("oracle"), weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("dying", one_of("last.ckpt", "probe.csv", "oracle.ckpt"))
def test_a_probed_run_that_is_interrupted_goes_on_to_the_same_bits(root, tmp_path, monkeypatch, dying):
    """Stopped in its second epoch, just before one of the files takes its place."""
    improving = [0.1, 0.2, 0.3]

    def scripted():
        # The probe's scores are made to rise, so that every epoch writes oracle.ckpt.
        monkeypatch.setattr(
            HoldoutProbe, "_dice", lambda self, _: dict.fromkeys(("disc", "cup"), improving[len(self._rows)])
        )

    scripted()
    whole = probed(root, tmp_path / "whole", "train.epochs=3")
    replace, count = Path.replace, 0

    def deadly(self, target):
        nonlocal count
        count += target.name == dying
        if target.name == dying and count == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", deadly)
    with pytest.raises(KeyboardInterrupt):
        probed(root, tmp_path / "parts", "train.epochs=3")
    monkeypatch.undo()
    scripted()
    resumed = probed(root, tmp_path / "parts", "train.epochs=3")
    assert resumed.probe.read_bytes() == whole.probe.read_bytes()
    for name in ("oracle", "best"):
        assert resumed.checkpoint(name).read_bytes() == whole.checkpoint(name).read_bytes()
    assert state(resumed, "last") == state(whole, "last")


@pytest.fixture
def stop_after_one_epoch(monkeypatch):
    """Runs are interrupted in their second epoch."""
    original = fit._save

    def stopped(folder, config, state, *rest, **options):
        if state.epoch == 2:
            raise KeyboardInterrupt
        original(folder, config, state, *rest, **options)

    monkeypatch.setattr(fit, "_save", stopped)


def test_a_probe_joins_no_run_late_and_leaves_none_early(root, tmp_path, stop_after_one_epoch):
    for out, probe_it in (("plain", False), ("probed", True)):
        with pytest.raises(KeyboardInterrupt):
            train(settings(), root, tmp_path / out, probe=probe_it)
    with pytest.raises(RunError, match=r"begun without --probe-holdout.*choose another --out"):
        probed(root, tmp_path / "plain")
    with pytest.raises(RunError, match="begun with --probe-holdout; go on with it"):
        train(settings(), root, tmp_path / "probed")


def test_a_trained_run_is_left_alone_but_gets_no_oracle_afterwards(root, tmp_path):
    watched, plain = probed(root, tmp_path / "probed"), train(settings(), root, tmp_path / "plain")
    assert train(settings(), root, tmp_path / "probed") == watched
    with pytest.raises(RunError, match="begun without --probe-holdout"):
        probed(root, tmp_path / "plain")
    assert plain.has("TRAINED")


@pytest.mark.parametrize("lost", ["probe.csv", "checkpoints/oracle.ckpt"])
def test_a_probe_that_lost_its_record_is_refused(root, tmp_path, stop_after_one_epoch, lost):
    with pytest.raises(KeyboardInterrupt):
        probed(root, tmp_path)
    (folder,) = find_runs([tmp_path])
    (folder.path / lost).unlink()
    with pytest.raises(RunError, match=r"probe\.csv or oracle\.ckpt lacks epochs that were trained"):
        probed(root, tmp_path)


def test_a_holdout_without_a_cup_cannot_be_probed(root, tmp_path):
    for mask in (root.path / "Domain1/test/ROIs/mask").iterdir():
        Image.open(mask).point(lambda grey: max(grey, 128)).save(mask)
    with pytest.raises(DataError, match="no case of A/test has a cup; nothing to probe"):
        probed(root, tmp_path)
