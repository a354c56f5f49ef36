from __future__ import annotations

import math
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_runs import EACH_OPERATOR

from fundus_seg import load_model
from fundus_seg.config import load_config
from fundus_seg.data.framing import Framing, disc_framing, domain_framings, odd_framings
from fundus_seg.data.io import read_mask
from fundus_seg.data.layout import open_root
from fundus_seg.errors import CheckpointError, RunError
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.predict import Predictor
from fundus_seg.models import bake, build_model, scale_photographs
from fundus_seg.models.checkpoint import load_network, network_state, read_checkpoint, write_checkpoint
from fundus_seg.ops import TVConv2d
from fundus_seg.protocol import Scoring
from fundus_seg.training import train

USAGE = {"image_interpolation": "lanczos", "scoring": {}}


NATIVE = Scoring(inference="native", largest_component=False, fill_holes=False)


class Mirror(torch.nn.Module):
    """Its logits are what it sees; what it saw is kept."""

    spec: ClassVar = {"image_size": 32}

    def forward(self, x):
        self.seen = x
        return 9 * x[:, :2]


class TestMasks:
    def test_masks_have_the_photograph_s_own_frame(self, checkpoint):
        masks = load_model(checkpoint)(np.zeros((70, 111, 3), dtype=np.uint8))
        assert (masks.shape, masks.dtype) == ((2, 70, 111), np.bool_)

    @pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
    def test_anything_but_a_photograph_is_refused(self, checkpoint, image):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
            load_model(checkpoint)(image)

    def test_masks_are_upsampled_logits_above_the_threshold(self):
        class Ramp(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.spec = {"image_size": 4}

            def forward(self, x):
                return torch.linspace(-3, 3, 4).expand(len(x), 2, 4, 4)

        masks = Predictor(Ramp())(np.zeros((4, 8, 3), dtype=np.uint8))
        # Half-pixel bilinear from 4 to 8 columns: -3 -2.5 -1.5 -0.5 0.5 1.5 2.5 3; sigmoid(z) > 0.75 means z > ln 3.
        assert masks[0].all(axis=0).tolist() == [False] * 5 + [True] * 3

    def test_bf16_computes_in_bf16_and_agrees(self, network):
        image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
        exact = Predictor(network).logits(image)
        low = Predictor(network, precision="bf16").logits(image)
        assert low.dtype == torch.float32
        assert not torch.equal(low, exact)
        assert (low - exact).norm() < 0.15 * exact.norm()


def test_anatomical_masks_are_made_on_demand_and_never_mixed(drawn, checkpoint, photographs, command):
    models = []
    for options, code in ((["--anatomical"], 0), ([], 1)):
        models.append(drawn())
        said = command("predict", checkpoint, photographs / "image", "--out", "out", *options, code=code).err
    assert models[0].scoring == Scoring(anatomical=True)
    assert "anatomical True there, none now" in said


class TestNative:
    @pytest.mark.parametrize("frame", [(70, 111), (16, 32), (20, 20), (9, 3), (5, 1), (1, 1)])
    def test_native_masks_lie_where_the_photograph_shows_them(self, frame):
        image = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (*frame, 3))
        network = Mirror()
        masks = Predictor(network, scoring=NATIVE)(image)
        np.testing.assert_array_equal(masks, image[..., :2].transpose(2, 0, 1) > 0)
        height, width = network.seen.shape[2:]
        assert (height % 16, width % 16) == (0, 0)
        assert height - frame[0] < 16 and width - frame[1] < 16

    def test_native_photographs_are_reflected_on_both_sides(self):
        network = Mirror()
        image = np.arange(13 * 16, dtype=np.uint8).reshape(13, 16, 1).repeat(3, axis=2)
        Predictor(network, scoring=NATIVE)(image)
        rows = [1, *range(13), 11, 10]
        np.testing.assert_array_equal(
            network.seen[0], scale_photographs(torch.from_numpy(image[rows])).permute(2, 0, 1)
        )

    @pytest.mark.parametrize("op", EACH_OPERATOR)
    def test_native_and_resized_agree_at_the_training_size(self, op):
        torch.manual_seed(0)
        small = {"encoder": "tu-mobilenetv2_035", "image_size": 64, "aspp_channels": 8, "expansion": 1}
        network = build_model(op, generator_channels=4, **small)
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        resized, native = (
            Predictor(network, scoring=Scoring(inference=each, threshold=0.5)) for each in ("resize", "native")
        )
        np.testing.assert_array_equal(native(image), resized(image))
        assert native(image[:50, :41]).shape == (2, 50, 41)

    def test_a_photograph_too_large_to_be_seen_whole_is_named_and_the_others_done(
        self, checkpoint, photographs, tmp_path, monkeypatch
    ):
        def bounded(path, **_):
            predictor = load_model(path, scoring=NATIVE)
            for module in predictor.network.modules():
                if isinstance(module, TVConv2d):
                    module.kernel_cache_bytes = 200_000  # of 4032 bytes a position: 7x7 of them
            return predictor

        monkeypatch.setattr("fundus_seg.inference.predict.load_model", bounded)
        large = photographs / "image/Atest1.png"
        Image.new("RGB", (130, 120)).save(large)
        row = pd.read_csv(predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")).loc[1]
        assert row.photograph == str(large)
        assert row.status == "declined"
        assert row.reason.startswith("130x120 pixels are too many for inference=native: crop it to the disc region")
        assert "8x9 feature maps" in row.reason
        assert "\n" not in row.reason
        assert len(list((tmp_path / "out/masks").iterdir())) == 3


class TestCheckpoints:
    def test_a_baked_network_predicts_as_the_network_it_was(self, network):
        image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
        for inference in ("resize", "native"):
            scoring = Scoring(inference=inference, threshold=0.5)
            masks, baked = (Predictor(each, scoring=scoring)(image) for each in (network, bake(network)))
            assert (masks != baked).mean() < 1e-3  # rounding may move a pixel on the threshold

    def test_a_loaded_checkpoint_gives_the_network_s_own_logits(self, network, checkpoint):
        x = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(load_network(checkpoint)[0](x), network(x))

    def test_checkpoint_with_code_is_refused_and_nothing_runs(self, tmp_path):
        class Code:
            def __reduce__(self):
                return (tmp_path.joinpath("ran").touch, ())

        torch.save({"format": 1, "model_spec": {}, "usage": {}, "model": Code()}, tmp_path / "bad.ckpt")
        with pytest.raises(CheckpointError, match=r"bad\.ckpt: refused"):
            read_checkpoint(tmp_path / "bad.ckpt")
        assert not (tmp_path / "ran").exists()

    def test_damaged_foreign_newer_and_misfit_checkpoints_are_named(self, checkpoint, network, tmp_path):
        damaged = tmp_path / "damaged.ckpt"
        damaged.write_bytes(checkpoint.read_bytes()[:5000])
        with pytest.raises(CheckpointError, match=r"damaged\.ckpt"):
            load_model(damaged)
        torch.save({"weights": 1}, tmp_path / "foreign.ckpt")
        with pytest.raises(CheckpointError, match="not a checkpoint of fundus-seg"):
            load_model(tmp_path / "foreign.ckpt")
        write_checkpoint(tmp_path / "newer.ckpt", {**network_state(network, USAGE), "format": 99})
        with pytest.raises(CheckpointError, match="format 99 is newer"):
            load_model(tmp_path / "newer.ckpt")
        state = network_state(network, USAGE)
        write_checkpoint(tmp_path / "misfit.ckpt", {**state, "model_spec": {**state["model_spec"], "op": "conv"}})
        with pytest.raises(CheckpointError, match=r"misfit\.ckpt: its weights do not fit"):
            load_model(tmp_path / "misfit.ckpt")
        with pytest.raises(CheckpointError, match="no such checkpoint"):
            load_model(tmp_path / "nowhere.ckpt")
        with pytest.raises(RunError, match=r"no checkpoints/best\.ckpt"):
            load_model(tmp_path)

    def test_a_run_s_folder_loads_its_best(self, draw_root, tmp_path):
        settings = load_config("tiny", overrides=["train.threads=1"], arguments={"holdout": "A"})
        run = train(settings, open_root(draw_root()), tmp_path)
        model = load_model(run.path)
        assert model(np.zeros((50, 50, 3), np.uint8)).shape == (2, 50, 50)
        seen = tmp_path.glob("data/Domain[234]/train/*/mask/*")
        framings = [disc_framing(read_mask(path)[0]) for path in seen]
        assert min(framings) - 0.01 < model.framing.low <= model.framing.high < max(framings) + 0.01
        assert model.phantom is False
        recorded = run.read_config()["provenance"]["framings"]
        assert recorded == read_checkpoint(run.checkpoint("best"))["usage"]["framings"]
        assert list(recorded) == ["B", "C", "D"]
        assert min(framings) - 0.01 < recorded["B"]["low"] <= recorded["B"]["median"] <= recorded["B"]["high"]


class TestFraming:
    def test_a_circle_has_its_diameter_and_size_and_shape_do_not_matter(self):
        rows, columns = np.mgrid[:400, :400]
        disc = np.hypot(rows - 200, columns - 200) < 100
        assert disc_framing(disc) == pytest.approx(0.5, abs=0.005)
        assert disc_framing(disc[::2, ::4]) == pytest.approx(0.5, abs=0.01)
        assert disc_framing(np.zeros((4, 4), bool)) == 0

    def test_odd_masks_set_no_limits(self):
        def square(side):
            mask = np.zeros((100, 100), bool)
            mask[:side, :side] = True
            return mask

        framing = Framing.of(np.stack([square(2), *(square(side) for side in np.linspace(40, 60, 300).astype(int))]))
        assert framing.low > 0.4
        assert Framing.of(np.zeros((3, 5, 5), bool)) is None

    def test_each_domain_has_its_own(self):
        discs = np.zeros((3, 100, 100), bool)
        for disc, side in zip(discs, (30, 40, 60), strict=True):
            disc[:side, :side] = True
        found = domain_framings({"A": discs, "B": discs[:0], "C": np.zeros((2, 5, 5))})
        assert found == {"A": {**asdict(Framing.of(discs)), "median": round(0.4 * 2 / math.sqrt(math.pi), 4)}}

    def test_domains_that_are_framed_differently_are_told_on_one_line(self):
        (line,) = odd_framings({"A/train": [0.7, 0.72, 0.9], "A/test": [0.71], "B/train": [0.3, 0.34, 0.31]})
        assert "by a factor of 2.3 (more than 2): median of B/train 0.31, A/test 0.71, A/train 0.72; crop all" in line
        (line,) = odd_framings({"A": [0.36, 0.4, 0.4], "B": [0.24, 0.2]})  # a factor of 1.8
        assert "by a factor of 1.8 (below 0.25 whole photographs, above 0.35 crops): median of B 0.22, A 0.40" in line

    @pytest.mark.parametrize(
        "framings",
        [
            {},
            {"A": []},
            {"A": [0.2], "B": [0.34]},
            {"A": [0.26], "B": [0.5]},
            {"A": [0.15], "B": [0.24]},
            {"A": [0.689, 0.707], "C": [0.609, 0.584]},  # Drishti-GS and REFUGE, as cropped for pOSAL
        ],
    )
    def test_domains_that_are_framed_alike_are_not(self, framings):
        assert list(odd_framings(framings)) == []

    @pytest.mark.parametrize("limits", [(0, 1), (0.5, 0.4), (float("nan"), 1), (0.1, float("inf"))])
    def test_impossible_limits_are_refused(self, limits):
        with pytest.raises(ValueError, match="framing of"):
            Framing(*limits)

    def test_a_checkpoint_keeps_its_framing_and_a_wrong_one_is_refused(self, network, tmp_path):
        usage = {**USAGE, "phantom": True, "framing": {"low": 0.4, "high": 0.7}}
        write_checkpoint(tmp_path / "a.ckpt", network_state(network, usage))
        model = load_model(tmp_path / "a.ckpt")
        assert (model.framing, model.phantom) == (Framing(0.4, 0.7), True)
        for wrong in ({"low": 2}, {"low": 0.4, "high": "x"}, [0.4, 0.7], {"low": 0.7, "high": 0.4}):
            write_checkpoint(tmp_path / "b.ckpt", network_state(network, {**usage, "framing": wrong}))
            with pytest.raises(CheckpointError, match="does not say how its network is used"):
                load_model(tmp_path / "b.ckpt")
