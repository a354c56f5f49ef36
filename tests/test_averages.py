"""Means of a network's weights over a run: their arithmetic, their checkpoint, and that they change nothing else."""

from __future__ import annotations

import copy
import itertools
import math
from fractions import Fraction

import pytest
import torch
from small_runs import Lines, killed_in_epoch, metrics, one_of, settings, weights
from torch import nn

from fundus_seg import load_model
from fundus_seg.config import TrainConfig
from fundus_seg.data.layout import open_root
from fundus_seg.errors import RunError
from fundus_seg.evaluation.runs import checkpoints_of, evaluate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.models import build_model
from fundus_seg.protocol import SELECTIONS
from fundus_seg.reporting.notes import captions, selections_text
from fundus_seg.reporting.runs import scored_runs
from fundus_seg.training import fit, train
from fundus_seg.training.averages import AVERAGES, EpochMean, ExponentialMean, ValleyMean, renew_norms, valley

AVERAGES_IN_SHORT = {
    "ema": ["train.average=ema"],
    "swa": ["train.average=swa", "train.swa_start=0.3"],
    "swad": ["train.average=swad", "train.swad_n_s=2", "train.swad_n_e=2"],
}


@pytest.fixture
def root(draw_root):
    return open_root(draw_root())


def content(run, name):
    return torch.load(run.checkpoint(name), weights_only=True)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def network_of(value):
    """One weight and one batch norm's running mean, both of this value."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    nn.init.constant_(network[0].weight, value)
    nn.init.constant_(network[1].running_mean, value)
    return network


def fed(average, epochs, dice):
    """What an average gives after each epoch, of networks whose weights after each step are listed by epoch."""
    given, rows = [], []
    for steps, score in zip(epochs, dice, strict=True):
        for value in steps:
            average.after_step(network_of(value))
        rows.append({"dice_disc": score, "dice_cup": score})
        mean = average.after_epoch(network_of(steps[-1]), rows)
        given.append(mean and mean[0].weight.item())
    return given


def run_of(epochs, **settings):
    return TrainConfig(epochs=epochs, **settings)


def test_exponential_mean_by_hand():
    """Kept are 1/10 and 2/11 of the warm-up, then 1/5: 9, then 9 2/11 + 2 9/11, then a fifth of that and 4/5 of 7."""
    average = ExponentialMean(network_of(0.0), run_of(3, ema_decay=0.2))
    second = 9 * 2 / 11 + 2 * 9 / 11
    expected = [9, second, second / 5 + 7 * 4 / 5]
    assert fed(average, [[10.0], [2.0], [7.0]], [0, 0, 0]) == pytest.approx(expected)
    assert average.mean.network[1].running_mean.item() == pytest.approx(expected[-1])


def test_mean_of_the_last_epochs_by_hand():
    """From 0.4 of five epochs on: the ends of epochs 3, 4 and 5, whose steps before count nothing."""
    average = EpochMean(network_of(0.0), run_of(5, swa_start=0.4))
    ends = [[1.0], [2.0], [9.0, 3.0], [9.0, 5.0], [9.0, 10.0]]
    assert fed(average, ends, [0] * 5) == [None] * 4 + [6.0]
    assert fed(EpochMean(network_of(0.0), run_of(1)), [[4.0]], [0]) == [4.0]


def test_mean_over_the_valley_by_hand():
    """Losses .5 .2 .3 .4 .2 .9 .9 .2: epoch 2 begins, 1.3 mean(.2, .3) = .325 is tolerated, epochs 6 and 7 end it."""
    average = ValleyMean(network_of(0.0), run_of(8, swad_n_s=2, swad_n_e=2))
    epochs = [[100.0, 100.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [50.0, 50.0], [50.0, 50.0], [60.0, 60.0]]
    dice = [0.5, 0.8, 0.7, 0.6, 0.8, 0.1, 0.1, 0.8]
    assert fed(average, epochs, dice) == [None] * 7 + [pytest.approx(4.5)]
    assert not average.undecided


def test_a_valley_that_never_begins_is_the_last_epoch_s_steps():
    average = ValleyMean(network_of(0.0), run_of(3))
    assert fed(average, [[1.0, 1.0], [2.0, 2.0], [4.0, 6.0]], [0.1, 0.2, 0.3]) == [None, None, pytest.approx(5)]


def test_epochs_that_segment_nothing_begin_no_valley():
    assert valley([1.0, 1.0, 1.0, 1.0], 3, 6, 1.3).now == range(3, 4)
    assert valley([1.0, 1.0, 1.0, 0.5, 0.4, 0.6, 0.5], 3, 6, 1.3).now == range(4, 7)


def by_the_paper(losses, n_s, n_e, r):
    """(t_s, t_e) by Algorithm 1, line by line, but for ties at its start; epochs count from 0, t_s may be None."""
    start, end, tolerated = None, len(losses) - 1, None
    for i in range(len(losses)):
        if tolerated is None:
            if i - n_s + 1 >= 0 and all(losses[i - n_s + 1] < losses[i - k] for k in range(n_s - 1)):
                start = i - n_s + 1
                tolerated = r / n_s * sum(losses[i - k] for k in range(n_s))
        elif i - n_e + 1 >= 0 and tolerated < min(losses[i - k] for k in range(n_e)):
            end = i - n_e
            break
    return start, end


@pytest.mark.parametrize(("n_s", "n_e"), [(n_s, n_e) for n_s in (1, 2, 3) for n_e in (1, 2, 3)])
def test_the_valley_is_the_paper_s_for_every_course_of_six_losses(n_s, n_e):
    """And what is said before the end holds to the end: nothing possible is left out, nothing sure is taken back."""
    for losses in itertools.product([Fraction(1), Fraction(2), Fraction(3)], repeat=6):
        start, end = by_the_paper(losses, n_s, n_e, Fraction(6, 5))
        whole = valley(losses, n_s, n_e, Fraction(6, 5))
        assert whole.now == (range(5, 6) if start is None else range(start, end + 1)), losses
        for known in range(1, 6):
            part = valley(losses[:known], n_s, n_e, Fraction(6, 5))
            counting = {epoch for epoch in whole.now if epoch < known} if start is not None else set()
            assert counting <= set(part.possible), (losses, known)
            assert set(part.sure) <= set(whole.now), (losses, known)


def test_a_mean_of_whole_numbers_and_of_what_a_network_has_more():
    average = ExponentialMean(network_of(0.0), run_of(1, ema_decay=0.0))
    network = network_of(3.0)
    network[1].num_batches_tracked += 7
    network.add_module("head", nn.Linear(1, 1))  # as a method might attach
    average.after_step(network)
    assert average.mean.network[1].num_batches_tracked == 7
    assert average.mean.network[0].weight == 3
    assert "head.weight" not in average.mean.network.state_dict()


def test_the_kernels_of_a_mean_follow_it():
    """TVConv keeps its kernels at inference, until a weight has changed."""
    torch.manual_seed(0)
    network = build_model("tvconv", encoder="tu-mobilenetv2_035", image_size=64, aspp_channels=8, expansion=1)
    average, other = ExponentialMean(network, run_of(1)), copy.deepcopy(network)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = average.mean.network.eval()(images)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    average.after_step(other)
    with torch.inference_mode():
        after = average.mean.network.eval()(images)
        fresh = build_model(**network.spec)
        fresh.load_state_dict(average.mean.network.state_dict())
        assert torch.equal(after, fresh.eval()(images))
    assert not torch.equal(before, after)


@pytest.mark.parametrize("name", one_of(*reversed(AVERAGES)))
def test_a_run_is_the_same_to_the_bit_with_and_without_an_average(root, tmp_path, name):
    overrides = ["train.epochs=4", "train.precision=bf16"]
    plain = train(settings(*overrides), root, tmp_path)
    run = train(settings(*overrides, *AVERAGES_IN_SHORT[name]), root, tmp_path)
    for checkpoint in ("best", "last"):
        assert_equal(weights(run, checkpoint), weights(plain, checkpoint))
    columns = [{key: value for key, value in row.items() if "average" not in key} for row in metrics(run)]
    assert columns == metrics(plain)
    assert not plain.checkpoint("average").exists()
    assert "average" not in content(run, "last")  # a run that is finished has no more use for it


@pytest.mark.parametrize(
    ("name", "epoch"), [("ema", 2), *(pytest.param(name, 4, marks=pytest.mark.slow) for name in ("swa", "swad"))]
)
def test_an_interrupted_run_goes_on_to_the_same_average(root, tmp_path, name, epoch):
    config = settings("train.epochs=5", *AVERAGES_IN_SHORT[name], "train.augment=scale-crop")
    whole = train(config, root, tmp_path / "whole")
    with killed_in_epoch(epoch):
        train(config, root, tmp_path / "parts")
    parts = train(config, root, tmp_path / "parts")
    assert parts.checkpoint("average").read_bytes() == whole.checkpoint("average").read_bytes()
    assert metrics(parts) == metrics(whole)
    assert_equal(weights(parts), weights(whole))


def test_an_interrupted_run_with_renewed_norms_goes_on_to_the_same_bits(root, tmp_path):
    config = settings("train.epochs=3", "train.norms=renewed", "train.method=mixstyle")
    whole = train(config, root, tmp_path / "whole")
    with killed_in_epoch(2):
        train(config, root, tmp_path / "parts")
    parts = train(config, root, tmp_path / "parts")
    assert metrics(parts) == metrics(whole)
    assert_equal(weights(parts), weights(whole))


def scripted(monkeypatch, *scores):
    """Validation gives these scores, of the network and of its mean in turn."""
    values = iter(scores)
    monkeypatch.setattr(fit, "validation_dice", lambda *_, **__: dict.fromkeys(("disc", "cup"), next(values)))


def test_the_exponential_mean_that_scores_best_is_kept(root, tmp_path, monkeypatch):
    scripted(monkeypatch, 0.1, 0.2, 0.9, 0.4, 0.2, 0.4)
    run = train(settings("train.epochs=3", "train.average=ema"), root, tmp_path)
    assert [float(row["average_dice_cup"]) for row in metrics(run)] == [0.2, 0.4, 0.4]
    assert (content(run, "best")["epoch"], content(run, "average")["epoch"]) == (2, 2)
    last = train(settings("train.epochs=3", "train.average=ema", "train.selection=last"), root, tmp_path)
    assert content(last, "average")["epoch"] == 3
    assert "average_dice_cup" not in metrics(last)[0]


def network_s_own(run, checkpoint):
    """The weights in a checkpoint, without the running statistics of batch norms."""
    return {
        name: value for name, value in weights(run, checkpoint).items() if "running" not in name and "num" not in name
    }


def test_a_mean_that_keeps_nothing_is_the_network_and_scores_like_it(root, tmp_path, monkeypatch):
    """In the same precision, if its norms are left as they are."""
    monkeypatch.setattr(fit, "renew_norms", lambda *_: None)
    run = train(settings("train.average=ema", "train.ema_decay=0", "train.precision=bf16"), root, tmp_path)
    assert all(row[f"average_dice_{name}"] == row[f"dice_{name}"] for row in metrics(run) for name in ("disc", "cup"))
    assert_equal(weights(run, "average"), weights(run, "best"))


@pytest.mark.parametrize(("name", "times"), [("ema", 3), ("swa", 1), ("swad", 1), ("renewed", 3)])
def test_running_statistics_are_those_of_the_source_photographs(root, tmp_path, name, times):
    """By hand: the first batch norm sees the first convolution of each photograph of some batches, always the same."""
    overrides = ["train.epochs=3", "train.method=mixstyle", "train.precision=fp32", "train.selection=last"]
    overrides += ["train.selection=source-validation"] if name == "swad" else []
    config = settings(*overrides, *AVERAGES_IN_SHORT.get(name, ["train.norms=renewed"]))
    calls = []
    original = fit.renew_norms

    def recorded(network, batches):
        calls.append([*batches])
        original(network, calls[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "renew_norms", recorded)
        run = train(config, root, tmp_path)
    seen = calls[0]
    assert [len(batch) for batch in seen] == [6, 6]
    assert len(calls) == times and all(torch.equal(*pair) for call in calls for pair in zip(call, seen, strict=True))
    network = load_model(run.path, checkpoint="average" if name in AVERAGES_IN_SHORT else "best").network
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    inputs = []
    norms[0].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        for batch in seen:
            network(batch)
    means = torch.stack([each.mean(dim=(0, 2, 3)) for each in inputs]).mean(dim=0)
    variances = torch.stack([each.var(dim=(0, 2, 3)) for each in inputs]).mean(dim=0)
    torch.testing.assert_close(norms[0].running_mean, means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norms[0].running_var, variances, rtol=1e-4, atol=1e-5)


def test_statistics_of_a_frozen_norm_stay_as_they_are():
    class Frozen(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    first, second = Frozen(1).eval(), nn.BatchNorm2d(1)
    nn.init.constant_(first.running_mean, 3.0)
    renew_norms(nn.Sequential(first, second), [torch.full((2, 1, 2, 2), value) for value in (4.0, 8.0)])
    assert first.running_mean == 3.0
    assert second.running_mean.item() == pytest.approx((4 + 8) / 2 - 3, rel=1e-4)
    assert second.momentum == 0.1


def test_the_mean_of_the_last_epochs_is_that_of_their_checkpoints(root, tmp_path):
    kept = []

    class Watcher:
        def on_begin(self, *_):
            pass

        def on_epoch_end(self, row, network):
            kept.append({name: value.clone() for name, value in network.state_dict().items()})

        def on_save(self):
            pass

    run = train(
        settings("train.epochs=4", "train.average=swa", "train.swa_start=0.25"), root, tmp_path, observers=[Watcher()]
    )
    averaged = weights(run, "average")
    for name, value in averaged.items():
        if "running" not in name and value.is_floating_point():
            expected = torch.stack([each[name].double() for each in kept[1:]]).mean(dim=0)
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert {key for row in metrics(run)[:-1] for key, value in row.items() if "average" in key and value} == set()
    assert math.isfinite(float(metrics(run)[-1]["average_dice_disc"]))


def test_an_average_is_scored_in_a_column_of_its_own(root, tmp_path):
    run = train(settings("train.average=ema"), root, tmp_path)
    assert sorted(checkpoints_of(run)) == ["average", "best", "last"]
    evaluations = evaluate_runs([tmp_path], checkpoints="all").evaluations
    columns = captions(evaluation.meta.column for evaluation in evaluations)
    assert sorted(columns.values()) == ["tvconv [average]", "tvconv [last]", "tvconv [source-validation]"]
    average = evaluate(run, checkpoint="average")
    assert (average.meta.checkpoint, average.meta.selection) == ("average", "average")
    assert average.path.stem.endswith("-average")
    assert selections_text([average]) == "selection: average"
    assert load_model(run.checkpoint("average")).network.spec == load_model(run.path).network.spec


def test_an_average_that_the_holdout_chose_says_so(root, tmp_path):
    run = train(settings("train.average=ema", "train.selection=oracle"), root, tmp_path)
    average = evaluate(run, checkpoint="average")
    assert average.meta.selection == "oracle-average"
    assert selections_text([average]) == f"selection: oracle-average ({SELECTIONS['oracle'].warning})"


def test_runs_without_an_average_are_left_out_and_a_lost_one_is_told_before_any_is_scored(root, tmp_path):
    how = "train with --set train.average=ema, swa or swad"
    averaging = settings("train.average=ema", op="depthwise")
    plain, averaged = train(settings(), root, tmp_path / "plain"), train(averaging, root, tmp_path)
    with pytest.raises(RunError, match=rf"average\.ckpt: no such checkpoint; {how}"):
        evaluate(plain, checkpoint="average")
    with pytest.raises(RunError, match=rf"average\.ckpt: no such checkpoint; {how}"):
        evaluate_runs([plain.path], checkpoints="average")
    told = Lines()
    (found,) = evaluate_runs([tmp_path], checkpoints="average", progress=told).evaluations
    assert found.meta.run.operator == "depthwise"
    (line,) = (line for line in told.lines if line.startswith("left out:"))
    assert line.startswith("left out: 1 run, trained without the checkpoint average") and line.endswith(how)
    told = Lines()
    (found,) = scored_runs([tmp_path], checkpoint="average", progress=told)
    assert (found.evaluation.meta.run.operator, told.lines) == ("depthwise", [line])
    averaged.checkpoint("average").unlink()
    for checkpoints in ("average", "all"):
        with pytest.raises(RunError, match=r"average\.ckpt: the run has made it, and it is gone; delete the folder"):
            evaluate_runs([tmp_path], checkpoints=checkpoints)
    assert not plain.path.joinpath("evaluations").exists()
    with pytest.raises(RunError, match=r"average\.ckpt: the run has made it, .*`fundus-seg train` command makes all"):
        train(averaging, root, tmp_path)


def test_a_run_that_lost_what_it_would_not_write_again_does_not_go_on(root, tmp_path):
    config = settings("train.average=swa", "train.epochs=3", "train.swa_start=0")
    with killed_in_epoch(3):
        train(config, root, tmp_path)
    (best,) = tmp_path.rglob("best.ckpt")  # of swa there is no mean yet
    kept = best.read_bytes()
    best.unlink()
    with pytest.raises(RunError, match=r"best\.ckpt: the run has made it, and it is gone"):
        train(config, root, tmp_path)
    best.write_bytes(kept)
    assert train(config, root, tmp_path).checkpoint("average").is_file()


@pytest.mark.slow
def test_a_run_on_two_devices_has_the_average_of_the_weights_that_they_share(root, tmp_path):
    config = settings(
        "train.devices=2",
        "train.precision=fp32",
        "train.selection=last",
        *AVERAGES_IN_SHORT["ema"],
        "train.ema_decay=0",
    )
    run = train(config, root, tmp_path)
    assert content(run, "average")["epoch"] == content(run, "best")["epoch"]
    assert_equal(network_s_own(run, "average"), network_s_own(run, "best"))
