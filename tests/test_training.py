from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import Lines, killed_in_epoch, metrics, one_of, settings, weights

from fundus_seg.config import MACHINE_SETTINGS, MachineSettings, load_config
from fundus_seg.data.cache import ResizedSplit
from fundus_seg.data.layout import open_root
from fundus_seg.errors import CheckpointError, DataError, RunError, UsageError
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.hardware import machine_choices
from fundus_seg.protocol import source_half
from fundus_seg.runs.epochs import score
from fundus_seg.runs.record import recorded_settings
from fundus_seg.training import fit, train
from fundus_seg.training.selection import ValidationSet, validation_dice
from fundus_seg.training.task import binary_cross_entropy, cross_entropy_and_dice, soft_dice_loss


@pytest.fixture
def root(draw_root):
    return open_root(draw_root())


def assert_same_run(first, second):
    assert metrics(first) == metrics(second)
    for name in ("last", "best"):
        one, other = weights(first, name), weights(second, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_a_run_leaves_what_records_promise(root, tmp_path):
    run = train(settings(), root, tmp_path / "runs")
    assert run.path.relative_to(tmp_path / "runs").parts[:2] == ("tiny", "A")
    assert run.has("TRAINED")
    content = run.read_config()
    assert content["data"]["sources"] == ["B", "C", "D"]
    assert set(content["inputs"]) == {"B/train", "C/train", "D/train", "A/test", "B/test", "C/test", "D/test"}
    assert content["train"]["threads"] == 1
    if Path(__file__).parents[1].joinpath(".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", content["provenance"]["commit"])
    rows = metrics(run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == {"epoch", "lr", "loss_disc", "loss_cup", "dice_disc", "dice_cup"}
    last = torch.load(run.checkpoint("last"), weights_only=True)
    assert "optimizer" not in last
    assert set(torch.load(run.checkpoint("best"), weights_only=True)) == {
        "format",
        "model_spec",
        "usage",
        "model",
        "epoch",
    }


def test_training_learns(root, tmp_path):
    run = train(settings("train.epochs=12", "train.steps_per_epoch=4"), root, tmp_path)
    losses = [float(row["loss_disc"]) + float(row["loss_cup"]) for row in metrics(run)]
    assert losses[-1] < 0.5 * losses[0]


def test_same_seed_same_bits_other_seed_other_run(root, tmp_path):
    first, second = (train(settings(), root, tmp_path / name) for name in ("one", "two"))
    assert_same_run(first, second)
    other = train(settings(seed=1), root, tmp_path / "one")
    assert other.path != first.path
    assert metrics(other) != metrics(first)


@pytest.mark.parametrize("op", one_of("tvconv", "depthwise", "conv"))
def test_an_interrupted_run_goes_on_to_the_same_bits(root, tmp_path, op):
    overrides = ["train.epochs=3", "optim.drop_epochs=[1]"]
    whole = train(settings(*overrides, op=op), root, tmp_path / "whole")

    with killed_in_epoch(2):
        train(settings(*overrides, op=op), root, tmp_path / "parts")
    assert_same_run(train(settings(*overrides, op=op), root, tmp_path / "parts"), whole)


def test_a_trained_run_is_left_alone_and_another_is_refused(root, tmp_path, draw_root):
    run = train(settings(), root, tmp_path)
    before = run.checkpoint("last").stat().st_mtime_ns
    assert train(settings(), root, tmp_path) == run
    assert run.checkpoint("last").stat().st_mtime_ns == before
    changed = open_root(draw_root("changed"))
    photograph = changed.path / "Domain2/train/ROIs/image/Btrain0.png"
    Image.new("RGB", (64, 64)).save(photograph)
    with pytest.raises(RunError, match=r"another run \(inputs.B/train: \w+ there, \w+ now\)"):
        train(settings(), changed, tmp_path)


def test_what_the_machine_chooses_is_recorded_and_kept(root, tmp_path, monkeypatch):
    """And does not name the folder; but another choice is refused by name."""
    unsaid = load_config("tiny", arguments={"holdout": "A"})
    choices = machine_choices().model_dump()
    assert set(choices) == {setting.removeprefix("train.") for setting in MACHINE_SETTINGS}
    run = train(unsaid, root, tmp_path)
    assert run.path.name == "seed-0" and run.path.parent.name == "tvconv"
    assert {key: run.read_config()["train"][key] for key in choices} == choices
    assert train(unsaid, root, tmp_path) == run
    other_precision = "fp32" if choices["precision"] == "bf16" else "bf16"
    elsewhere = MachineSettings(threads=9, precision=other_precision, channels_last=False)
    monkeypatch.setattr("fundus_seg.training.fit.machine_choices", lambda: elsewhere)
    assert train(unsaid, root, tmp_path) == run
    for key, value in (("threads", 7), ("precision", other_precision), ("channels_last", False)):
        other = load_config("tiny", overrides=[f"train.{key}={value}"], arguments={"holdout": "A"})
        with pytest.raises(RunError, match=rf"train.{key}: {choices[key]} there, {value} now"):
            train(other, root, tmp_path)


def test_a_run_from_before_there_was_a_precision_is_one_of_fp32(root, tmp_path):
    chosen = ["train.precision=fp32", "train.channels_last=false"]  # nor methods
    run = train(settings(*chosen), root, tmp_path)
    content = run.read_config()
    for setting in ("precision", "channels_last", "method"):
        del content["train"][setting]
    run.write_config(content)
    assert train(settings(), root, tmp_path) == run
    with pytest.raises(RunError, match=r"train\.precision: fp32 there, bf16 now"):
        train(settings("train.precision=bf16"), root, tmp_path)


def test_every_precision_and_layout_trains_alike(root, tmp_path):
    """Not to the digit: dropout draws its zeros in the order of memory."""

    def losses(precision, channels_last):
        set_here = (f"train.precision={precision}", f"train.channels_last={channels_last}")
        run = train(settings(*set_here), root, tmp_path / f"{precision}-{channels_last}")
        assert all(value.dtype != torch.bfloat16 for value in weights(run, "best").values())
        return [float(row["loss_disc"]) for row in metrics(run)]

    plain = losses("fp32", False)
    last, low = losses("fp32", True), losses("bf16", True)
    assert plain != last != low
    assert last == pytest.approx(plain, rel=0.1)
    assert low == pytest.approx(plain, rel=0.1)


def test_a_run_s_own_config_repeats_it_to_the_bit(root, tmp_path):
    run = train(settings("optim.lr=3e-4"), root, tmp_path / "first")
    again = train(load_config(str(run.config)), root, tmp_path / "second")
    assert again.path.relative_to(tmp_path / "second") == run.path.relative_to(tmp_path / "first")
    assert_same_run(run, again)


def test_other_versions_are_warned_of(root, tmp_path):
    run = train(settings(), root, tmp_path)
    content = run.read_config()
    content["provenance"]["versions"]["torch"] = "1.0"
    run.write_config(content)
    progress = Lines()
    train(settings(), root, tmp_path, progress=progress)
    assert any("torch: 1.0 then" in line for line in progress.lines)


def test_every_operator_gets_the_same_batches(root, tmp_path, monkeypatch):
    seen: dict[str, list[torch.Tensor]] = {}
    original = fit.DomainBatches.epoch

    def recorded(self, epoch):
        for batch in original(self, epoch):
            seen.setdefault(op, []).append(batch.images)
            yield batch

    monkeypatch.setattr(fit.DomainBatches, "epoch", recorded)
    for op in ("conv", "tvconv"):
        train(settings(op=op), root, tmp_path)
    assert all(torch.equal(*pair) for pair in zip(seen["conv"], seen["tvconv"], strict=True))


def test_no_holdout_case_trains_or_selects(draw_root, tmp_path):
    """The run is the same to the bit when every photograph and mask of the holdout is another."""
    plain = train(settings(), open_root(draw_root("plain")), tmp_path / "plain")
    other = open_root(draw_root("other"))
    for path in other.path.glob("Domain1/*/ROIs/image/*.png"):
        Image.new("RGB", (64, 64), "white").save(path)
    for path in other.path.glob("Domain1/*/ROIs/mask/*.png"):
        mask = np.full((64, 64), 255, dtype=np.uint8)
        mask[:20] = 128
        mask[:10] = 0
        Image.fromarray(mask).save(path)
    assert_same_run(plain, train(settings(), other, tmp_path / "other"))


@pytest.mark.parametrize("again", [False, True], ids=["copied", "saved again"])
def test_a_photograph_that_a_source_shares_with_the_holdout_is_refused(root, tmp_path, again):
    scored = root.path / "Domain1/test/ROIs/image/Atest2.png"
    copy = root.path / "Domain3/train/ROIs/image/Ctrain1.png"
    copy.write_bytes(scored.read_bytes())
    if again:
        Image.open(scored).save(copy, compress_level=1)
    with pytest.raises(DataError, match=r"C/train/Ctrain1: the same photograph as A/test/Atest2"):
        train(settings(), root, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_source_validation_reads_the_select_half_alone(root, tmp_path, monkeypatch):
    seen: dict[str, ValidationSet] = {}

    def recorded(network, domains, **options):
        seen.update(domains)
        return validation_dice(network, domains, **options)

    monkeypatch.setattr(fit, "validation_dice", recorded)
    train(settings(), root, tmp_path)
    assert set(seen) == {"B", "C", "D"}
    for domain, validation in seen.items():
        names = [validation.split.names[case] for case in validation.cases]
        assert names == [case.name for case in root.cases(domain, "test") if source_half(case.name) == "select"]


def test_oracle_reads_the_holdout_and_last_reads_nothing(root, tmp_path, monkeypatch):
    seen = []

    def recorded(network, domains, **options):
        seen.append({domain: len(validation.cases) for domain, validation in domains.items()})
        return validation_dice(network, domains, **options)

    monkeypatch.setattr(fit, "validation_dice", recorded)
    train(settings("train.selection=oracle"), root, tmp_path)
    assert seen == [{"A": 4}] * 2
    run = train(settings("train.selection=last"), root, tmp_path)
    assert len(seen) == 2
    best = weights(run, "best")
    assert all(torch.equal(best[key], value) for key, value in weights(run, "last").items())


@pytest.mark.parametrize(("scores", "epoch"), [([0.1, 0.3, 0.3], 2), ([0.3, 0.1, 0.2], 1), ([0.1, 0.2, 0.3], 3)])
def test_the_first_maximum_becomes_best(root, tmp_path, monkeypatch, scores, epoch):
    values = iter(scores)
    monkeypatch.setattr(fit, "validation_dice", lambda *_, **__: dict.fromkeys(("disc", "cup"), next(values)))
    run = train(settings("train.epochs=3"), root, tmp_path)
    assert torch.load(run.checkpoint("best"), weights_only=True)["epoch"] == epoch


def test_validation_dice_is_a_mean_over_cases_then_domains():
    class Painted(torch.nn.Module):
        """Predicts disc and cup where the photograph is bright."""

        def forward(self, x):
            return 20 * x[:, :1].repeat(1, 2, 1, 1)

    def drawn(*bright_rows):
        images = np.zeros((len(bright_rows), 8, 8, 3), dtype=np.uint8)
        for image, rows in zip(images, bright_rows, strict=True):
            image[:rows] = 255
        masks = np.zeros((len(bright_rows), 2, 8, 8), dtype=np.uint8)
        masks[:, :, :4] = 1
        return ValidationSet(
            ResizedSplit("", ("",) * len(images), images, masks, (), np.ones((len(images), 2), bool)),
            range(len(images)),
        )

    # Truth is 4 rows: 4 predicted rows give Dice 1, 2 give 2·2/(2+4) = 2/3, none give 0.
    domains = {"B": drawn(4, 2, 0), "C": drawn(4)}
    dice = validation_dice(Painted(), domains, threshold=0.75, device=torch.device("cpu"))
    expected = ((1 + 2 / 3 + 0) / 3 + 1) / 2
    assert dice == {"disc": pytest.approx(expected), "cup": pytest.approx(expected)}
    assert score({"disc": 0.5, "cup": 0.7}) == pytest.approx(0.6)


def test_loss_is_the_mean_over_pixels_of_each_structure():
    logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1).expand(3, 2, 4, 4)
    masks = torch.ones(3, 2, 4, 4, dtype=torch.uint8)
    torch.testing.assert_close(
        binary_cross_entropy(logits, masks), torch.tensor([math.log(2), math.log(1 + math.exp(-2))])
    )


def soft_dice_by_hand(probabilities, truths):
    """In float64, case by case and pixel by pixel."""
    shared = sum(p * y for p, y in zip(probabilities, truths, strict=True))
    return 1 - (2 * shared + 1) / (sum(probabilities) + sum(truths) + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_and_dice_is_the_sum_of_both_in_float32(dtype):
    draw = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(3, 2, 8, 8, generator=draw)).to(dtype)
    masks = torch.randint(2, (3, 2, 8, 8), generator=draw, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        losses = cross_entropy_and_dice(logits, masks)
    expected = []
    for channel in range(2):
        z, y = logits[:, channel].double().flatten(1), masks[:, channel].double().flatten(1)
        cross_entropy = (y * (1 + (-z).exp()).log() + (1 - y) * (1 + z.exp()).log()).mean()
        cases = zip(z.sigmoid().tolist(), y.tolist(), strict=True)
        expected.append(cross_entropy.item() + sum(soft_dice_by_hand(*case) for case in cases) / 3)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_soft_dice_of_an_empty_truth_grows_with_what_is_predicted():
    """2, 1 and 0 pixels of four are predicted: 2/3, 1/2, 0; the gradient shrinks them."""
    empty = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)

    def loss(pixels):
        logits = torch.full((1, 2, 2, 2), -40.0)
        logits.flatten(2)[..., :pixels] = 40.0
        return soft_dice_loss(logits, empty)[0].item()

    assert [loss(pixels) for pixels in (2, 1, 0)] == pytest.approx([2 / 3, 1 / 2, 0], abs=1e-6)
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    soft_dice_loss(logits, empty).sum().backward()
    assert (logits.grad > 0).all()
    assert soft_dice_loss(torch.full((1, 2, 2, 2), 40.0), empty + 1).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_diverging_run_says_so_and_keeps_what_it_had(root, tmp_path):
    with pytest.raises(RunError, match=r"no longer finite in epoch \d.*lower optim.lr"):
        train(settings("optim.lr=1e30", "train.epochs=8"), root, tmp_path)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ("[A, B]", "the holdout never trains"),
        ("[B, B]", "each once"),
        ("[]", "name one or more"),
        ("[E]", "domain 'E'"),
    ],
)
def test_wrong_sources_are_refused(root, tmp_path, sources, message):
    with pytest.raises(UsageError, match=message):
        train(settings(f"data.sources={sources}"), root, tmp_path)
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_batch_of_one_is_refused(root, tmp_path):
    with pytest.raises(UsageError, match="two or more cases in a batch"):
        train(settings("data.sources=[B]", "train.batch_per_domain=1"), root, tmp_path)


def test_every_mask_that_must_not_train_is_listed_before_a_run_begins(root, tmp_path):
    for number in (0, 2):
        Image.new("L", (64, 64), 255).save(root.path / f"Domain2/train/ROIs/mask/Btrain{number}.png")
    with pytest.raises(DataError) as caught:
        train(settings(), root, tmp_path / "runs")
    assert all(f"Btrain{number}.png: the disc is empty" in str(caught.value) for number in (0, 2))
    assert not (tmp_path / "runs").exists()


def test_the_problems_of_all_splits_are_told_at_once(root, tmp_path):
    """Every kind of bad file, in sources and holdout, in both splits, is named before a run begins."""
    files = {
        f"{domain}{split}": root.path / f"Domain{'ABCD'.index(domain) + 1}" / split / "ROIs"
        for domain in "ABCD"
        for split in ("train", "test")
    }
    (files["Btrain"] / "mask/Btrain0.png").unlink()
    (files["Btrain"] / "image/Btrain1.png").write_bytes(b"not an image")
    Image.new("L", (64, 64), 255).save(files["Btrain"] / "mask/Btrain2.png")
    (files["Btest"] / "image/Btest0.png").unlink()
    photograph = files["Ctrain"] / "image/Ctrain0.png"
    photograph.write_bytes(photograph.read_bytes()[:200])
    Image.new("L", (64, 64), 90).save(files["Ctrain"] / "mask/Ctrain0.png")  # both files of one case
    Image.new("L", (64, 64), 0).save(files["Ctrain"] / "mask/Ctrain2.png")
    Image.new("L", (32, 64), 255).save(files["Ctest"] / "mask/Ctest3.png")
    shutil.rmtree(files["Dtest"] / "mask")
    (files["Dtrain"] / "image/Dtrain1.png").unlink()
    (files["Dtrain"] / "image/Dtrain1.png").symlink_to("Dtrain1.png")
    (files["Atest"] / "mask/Atest1.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        train(settings(), open_root(root.path), tmp_path / "runs")
    heading, *lines = str(caught.value).splitlines()
    assert heading == "11 problems with the data:"
    expected = {
        "image/Btrain0.png: photograph without a mask",
        "image/Btrain1.png: not an image",
        "mask/Btrain2.png: the disc is empty",
        "mask/Btest0.png: mask without a photograph",
        "image/Ctrain0.png: damaged",
        "mask/Ctrain0.png: greys [90] on 100.0 %",
        "mask/Ctrain2.png: no rim",
        "mask/Ctest3.png: 32x64 pixels, but its photograph has 64x64",
        "Domain4/test/ROIs/mask: no such folder",
        "image/Dtrain1.png: cannot be opened (Too many levels of symbolic links)",
        "mask/Atest1.png: not an image: the file is empty",
    }
    assert all(any(text in line for line in lines) for text in expected), caught.value
    assert len(lines) == len(expected)
    assert not (tmp_path / "runs").exists()


def test_nothing_to_select_on_is_told_before_a_run_begins(root, tmp_path):
    for case in root.cases("C", "test"):
        if source_half(case.name) == "select":
            case.image.unlink()
            case.mask.unlink()
    with pytest.raises(DataError, match="too few test cases of C"):
        train(settings(), open_root(root.path), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_weights_that_cannot_be_had_leave_nothing(root, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file"):
        train(settings("model.encoder_weights=nowhere.pth"), root, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_setting_without_effect_makes_no_other_run(root, tmp_path):
    plain = settings(op="conv")
    idle = ("train.ema_decay=0.5", "train.swa_start=0.5", "train.swad_r=2", "model.generator_channels=4")
    assert settings(*idle, op="conv").recipe(all_domains="ABCD") == ""
    started = settings("model.start=there", "model.encoder_weights=imagenet")
    assert started.differences(all_domains="ABCD") == {"model.start": "there"}
    assert settings("optim.schedule=cosine", "optim.drop_factor=2").recipe(all_domains="ABCD").startswith("schedule=")
    assert settings("optim.warmup=1").recipe(all_domains="ABCD").startswith("warmup="), "of either schedule"
    with killed_in_epoch(2):
        train(plain, root, tmp_path)
    run = train(settings("model.generator_channels=4", "train.ema_decay=0.5", op="conv"), root, tmp_path)
    assert recorded_settings(run).network_spec() == plain.network_spec()
    assert evaluate(run).meta.run.recipe == ""
    assert_same_run(run, train(plain, root, tmp_path / "whole"))


def test_phantom_runs_lie_apart(root, tmp_path):
    from fundus_seg.phantom.make import PHANTOM_MARKER

    (root.path / PHANTOM_MARKER).touch()
    run = train(settings(), open_root(root.path), tmp_path)
    assert run.path.relative_to(tmp_path).parts[:3] == ("phantom", "tiny", "A")
    assert run.read_config()["provenance"]["phantom"] is True
    (root.path / PHANTOM_MARKER).unlink()  # as in a copy of the same photographs
    assert evaluate(run, root.path).meta.phantom


def test_a_wrong_holdout_is_refused_before_torch_is_imported(draw_root, tmp_path):
    program = (
        "import sys\nfrom fundus_seg_cli.main import main\n"
        f"sys.argv = ['fundus-seg', 'train', '--holdout', 'E', '--data', {str(draw_root())!r}]\n"
        "try: main()\nfinally: print(sorted({'torch', 'lightning', 'albumentations'} & set(sys.modules)))"
    )
    refused = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: unknown domain 'E'")
    assert refused.stdout == "[]\n"
