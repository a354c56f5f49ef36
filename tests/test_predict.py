from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import cv2
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from drawn_masks import DrawnModel, pairs_of
from PIL import Image

from fundus_seg import load_model
from fundus_seg.builtins import OPERATORS
from fundus_seg.config import load_config
from fundus_seg.data.coding import DOFE
from fundus_seg.data.io import read_image, read_mask
from fundus_seg.data.layout import open_root
from fundus_seg.errors import BusyError, CheckpointError, DataError, RunError
from fundus_seg.inference.case_rows import row_of, texts_of
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.pipeline import overlapped
from fundus_seg.inference.predict import Predictor
from fundus_seg.inference.shards import Shard
from fundus_seg.metrics.framing import Framing, disc_framing
from fundus_seg.models import bake, build_model, scale_photographs
from fundus_seg.models.checkpoint import load_network, network_state, read_checkpoint, write_checkpoint
from fundus_seg.ops import TVConv2d
from fundus_seg.phantom import make_phantom
from fundus_seg.progress import Silent
from fundus_seg.protocol import Scoring
from fundus_seg.training import train

USAGE = {"image_interpolation": "lanczos", "scoring": {}}


@pytest.fixture
def network():
    torch.manual_seed(0)
    spec = load_config("tiny", arguments={"holdout": "A"}).model
    return build_model(
        "tvconv", encoder=spec.encoder, image_size=64, aspp_channels=8, expansion=1, generator_channels=4
    ).eval()  # fmt: skip


@pytest.fixture
def checkpoint(network, tmp_path):
    write_checkpoint(tmp_path / "model.ckpt", network_state(network, USAGE))
    return tmp_path / "model.ckpt"


@pytest.fixture
def photographs(draw_root):
    return draw_root(size=90) / "Domain1/test/ROIs"


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

    @pytest.mark.parametrize("op", OPERATORS)
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
        with pytest.raises(DataError) as caught:
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")
        message = str(caught.value)
        assert message.startswith(
            f"{large}: 130x120 pixels are too many for inference=native: crop it to the disc region"
        )
        assert "8x9 feature maps" in message
        assert "\n" not in message
        assert len(pd.read_csv(tmp_path / "out/cases.csv")) == 3


class TestFolders:
    def test_folder_of_photographs(self, checkpoint, photographs, tmp_path):
        csv = predict_folder(
            checkpoint, [photographs / "image"], tmp_path / "out", overlay="png", truth=[str(photographs / "mask")]
        )
        table = pd.read_csv(csv)
        assert table["photograph"].str.endswith("png").sum() == 4
        assert {"height", "width", "disc_pixels", "cup_pixels", "vertical_cdr", "dsc_disc", "dsc_cup"} <= set(table)
        predictor = load_model(checkpoint)
        for name in (f"Atest{number}" for number in range(4)):
            masks = predictor(np.asarray(Image.open(photographs / "image" / f"{name}.png")))
            np.testing.assert_array_equal(
                read_mask(tmp_path / "out/masks" / f"{name}.png"), [masks[0], masks[0] & masks[1]]
            )
            assert Image.open(tmp_path / "out/overlays" / f"{name}.png").width == 540  # enlarged, or no text would fit

    def test_nifti(self, checkpoint, photographs, tmp_path):
        predict_folder(checkpoint, [photographs / "image/Atest0.png"], tmp_path / "out", form="nifti")
        labels = nibabel.load(tmp_path / "out/masks/Atest0.nii.gz").get_fdata()
        assert labels.shape == (90, 90, 1)
        assert set(np.unique(labels)) <= {0, 1, 2}

    def test_names_with_spaces_and_letters_of_any_alphabet(self, checkpoint, photographs, tmp_path):
        odd = tmp_path / "Œil gauche №1.png"
        (photographs / "image/Atest0.png").rename(odd)
        predict_folder(checkpoint, [odd], tmp_path / "out")
        assert (tmp_path / "out/masks" / odd.name).is_file()

    @pytest.mark.parametrize("twin", ["Atest0.jpg", "Atest0.PNG", "twin/Atest0.png"])
    def test_photographs_of_one_name_are_named_and_the_others_done(self, checkpoint, photographs, tmp_path, twin):
        twin = photographs / "image" / twin
        twin.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(twin)
        given = [photographs / "image", *([twin] if twin.parent.name == "twin" else [])]
        with pytest.raises(DataError, match="another photograph is named Atest0 too, ") as caught:
            predict_folder(checkpoint, given, tmp_path / "out")
        assert {problem.path for problem in caught.value.problems} == {twin, photographs / "image/Atest0.png"}
        assert "the other 3 are done" in str(caught.value)
        assert sorted(path.stem for path in (tmp_path / "out/masks").iterdir()) == ["Atest1", "Atest2", "Atest3"]

    def test_photographs_that_all_have_one_name_make_nothing(self, checkpoint, photographs, tmp_path):
        own = photographs / "image/Atest0.png"
        Image.open(own).save(tmp_path / "Atest0.bmp")
        with pytest.raises(DataError, match="another photograph is named Atest0"):
            predict_folder(checkpoint, [own, tmp_path / "Atest0.bmp"], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_true_masks_that_differ_in_case_are_told(self, checkpoint, photographs, tmp_path):
        for path in sorted((photographs / "mask").iterdir()):
            path.rename(path.with_name(path.name.lower()))
        with pytest.raises(DataError, match="'atest0' and 'Atest0' differ in upper and lower case"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_a_mask_is_scored_whichever_way_the_photograph_writes_its_accents(
        self, drawn, checkpoint, photographs, tmp_path, form
    ):
        for path in sorted(photographs.rglob("*.png")):
            path.rename(path.with_stem(unicodedata.normalize(form, f"\u00e9{path.stem}")))
        drawn()
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])
        masks = sorted(path.stem for path in (tmp_path / "out/masks").iterdir())
        assert masks == [f"\u00e9Atest{number}" for number in range(4)]
        assert list(pairs_of(tmp_path / "out/masks", photographs / "mask").names) == masks

    def test_what_was_given_is_never_written_over(self, checkpoint, photographs):
        before = (photographs / "mask/Atest0.png").read_bytes()
        masks = (photographs / "mask").rename(photographs / "masks")
        with pytest.raises(DataError, match="choose another --out"):
            predict_folder(checkpoint, [photographs / "image"], photographs, truth=[str(masks)])
        assert (masks / "Atest0.png").read_bytes() == before

    def test_truth_without_a_match_is_refused(self, checkpoint, photographs, tmp_path):
        with pytest.raises(DataError, match="no such folder"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(tmp_path / "nowhere")])
        (photographs / "mask/Atest0.png").rename(tmp_path / "other.png")
        with pytest.raises(DataError, match="--truth takes a folder"):
            predict_folder(
                checkpoint,
                [photographs / "image"],
                tmp_path / "out",
                truth=[str(tmp_path / "{name}.png")],
            )

    def test_bad_photographs_are_all_named_and_the_others_done(self, checkpoint, photographs, tmp_path):
        for number in (1, 2):
            (photographs / f"image/Atest{number}.png").write_bytes(b"")
        with pytest.raises(DataError) as caught:
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")
        assert all(f"Atest{number}.png: not an image" in str(caught.value) for number in (1, 2))
        assert "the other 2 are done" in str(caught.value)
        assert len(pd.read_csv(tmp_path / "out/cases.csv")) == 2

    def test_missing_photograph_and_empty_folder_are_named(self, checkpoint, tmp_path):
        with pytest.raises(DataError, match="no such photograph"):
            predict_folder(checkpoint, [tmp_path / "x.png"], tmp_path / "out")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="no photograph in it"):
            predict_folder(checkpoint, [tmp_path / "empty"], tmp_path / "out")


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


class Told(Silent):
    """Keeps what it is told, and how far the bar went."""

    def __init__(self):
        self.lines, self.steps, self.total = [], 0, None

    @contextmanager
    def task(self, description, total):
        self.total = total

        def advance(**_):
            self.steps += 1

        yield advance

    def line(self, text):
        self.lines.append(text)

    @property
    def text(self):
        return "\n".join(self.lines)


class Drawn(DrawnModel):
    """A model whose disc and cup are circles; `before` is called with the number of each photograph."""

    framing = Framing(0.3, 0.8)

    def __init__(self, disc=0.5, cup=0.2, before=lambda number: None):
        self.radii, self.before, self.calls = (disc / 2, cup / 2), before, 0

    def __call__(self, image):
        self.calls += 1
        self.before(self.calls)
        height, width = image.shape[:2]
        rows, columns = np.mgrid[:height, :width]
        far = np.hypot((rows + 0.5) / height - 0.5, (columns + 0.5) / width - 0.5)
        return np.stack([far < radius for radius in self.radii])


@pytest.fixture
def drawn(monkeypatch):
    """A function that makes `predict_folder` take a drawn model."""

    def draw(**how):
        model = Drawn(**how)
        monkeypatch.setattr("fundus_seg.inference.predict.load_model", lambda path, **_: model)
        return model

    return draw


def rows_of(table):
    with Path(table).open(newline="", encoding="utf8") as file:
        return list(csv.DictReader(file))


def stop_at(number, how):
    def stop(call):
        if call == number:
            how()

    return stop


@pytest.fixture
def hears_ctrl_c():
    """SIGINT raises KeyboardInterrupt, as in a terminal: the background jobs of a shell ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestGoingOn:
    """One --out given again."""

    @pytest.fixture
    def folder(self, photographs):
        return photographs / "image"

    def test_what_is_done_is_not_done_again(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        before = table.read_bytes()
        model, told = drawn(), Told()
        assert predict_folder(checkpoint, [folder], tmp_path / "out", progress=told) == table
        assert model.calls == 0
        assert table.read_bytes() == before
        assert "4 of 4 photographs are done already" in told.text

    def test_an_interrupted_call_keeps_what_is_done_and_goes_on(self, drawn, checkpoint, folder, tmp_path):
        def interrupt():
            raise KeyboardInterrupt

        drawn(before=stop_at(3, interrupt))
        told = Told()
        with pytest.raises(KeyboardInterrupt):
            predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg", progress=told)
        assert told.lines[-1].startswith("stopped: 2 of 4 photographs are done; the same command goes on")
        assert [Path(row["photograph"]).stem for row in rows_of(tmp_path / "out/cases.csv")] == ["Atest0", "Atest1"]
        assert len(list((tmp_path / "out/masks").iterdir())) == 2  # nothing half-written
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg")
        assert model.calls == 2
        predict_folder(checkpoint, [folder], tmp_path / "whole", overlay="jpeg")
        assert (tmp_path / "out/cases.csv").read_bytes() == (tmp_path / "whole/cases.csv").read_bytes()
        assert len(list((tmp_path / "out/overlays").iterdir())) == 4

    def test_a_full_disk_says_where_it_stopped(self, drawn, checkpoint, folder, tmp_path):
        def fill():
            raise RunError("out/cases.csv: cannot be written (No space left on device)")

        drawn(before=stop_at(3, fill))
        told = Told()
        with pytest.raises(RunError, match="No space left"):
            predict_folder(checkpoint, [folder], tmp_path / "out", progress=told)
        assert told.lines[-1].startswith("stopped: 2 of 4 photographs are done; the same command goes on")

    def test_nothing_is_said_to_be_done_in_a_folder_that_was_deleted(self, drawn, checkpoint, folder, tmp_path):
        def delete():
            while (tmp_path / "out").exists():  # the masks before this one are being written
                shutil.rmtree(tmp_path / "out", ignore_errors=True)

        drawn(before=stop_at(3, delete))
        told = Told()
        with pytest.raises(RunError, match="deleted while this process wrote there"):
            predict_folder(checkpoint, [folder], tmp_path / "out", progress=told)
        assert "stopped" not in told.text

    def test_a_cut_last_line_is_done_again(self, drawn, checkpoint, folder, tmp_path):
        (folder / "Atest3.png").rename(folder / 'q"uo,te\nd\r.png')
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        whole = table.read_bytes()
        start = whole.index(b'"')  # of the last row
        for end in range(start, len(whole) + 1):
            table.write_bytes(whole[:end])
            model = drawn()
            predict_folder(checkpoint, [folder], tmp_path / "out")
            assert model.calls == (end < len(whole))
            assert table.read_bytes() == whole

    @pytest.mark.parametrize("how", ["model", "precision", "format", "version", "protocol"])
    def test_other_predictions_are_not_mixed(self, drawn, checkpoint, folder, tmp_path, monkeypatch, how):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        before = table.read_bytes()
        named, options = how, {}
        if how == "model":
            checkpoint = Path(shutil.copy(checkpoint, tmp_path / "other.ckpt"))
            with checkpoint.open("ab") as file:
                file.write(b" ")
            named = "checkpoint"
        elif how == "precision":
            options = {"precision": "bf16"}
        elif how == "format":
            options, named = {"form": "nifti"}, "mask format png there, nifti now"
        elif how == "version":
            monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0")
            named = "99.0 now"
        else:
            monkeypatch.setattr("fundus_seg.inference.job.PROTOCOL_VERSION", 99)
        with pytest.raises(RunError, match=rf"holds other predictions \(.*{named}.*choose another --out"):
            predict_folder(checkpoint, [folder], tmp_path / "out", **options)
        assert table.read_bytes() == before

    def test_a_folder_of_unknown_predictions_is_refused(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        (tmp_path / "out/predictions.json").unlink()
        with pytest.raises(RunError, match=r"without predictions\.json"):
            predict_folder(checkpoint, [folder], tmp_path / "out")
        for content in ("", "[]", "{}", '{"made_by": 1}', "[" * 100_000):
            (tmp_path / "out/predictions.json").write_text(content)
            with pytest.raises(RunError, match=r"predictions\.json"):
                predict_folder(checkpoint, [folder], tmp_path / "out")

    def test_a_table_of_other_columns_is_refused(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        whole = table.read_text()
        for damaged in ("photograph,height\n1,2\n", whole.replace(",90,90,", ",90,", 1), ""):
            table.write_text(damaged)
            with pytest.raises(RunError, match=r"cases\.csv: not rows of photograph, height"):
                predict_folder(checkpoint, [folder], tmp_path / "out")

    def test_changed_gone_and_new_photographs(self, drawn, checkpoint, folder, tmp_path):
        """The case c19: of two photographs one is damaged and one is gone, and a third is new."""
        for number in (2, 3):
            (folder / f"Atest{number}.png").rename(tmp_path / f"{number}.png")
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out", overlay="png")
        (folder / "Atest0.png").write_bytes((folder / "Atest0.png").read_bytes()[:500])
        (folder / "Atest1.png").unlink()
        (tmp_path / "2.png").rename(folder / "Atest2.png")
        told = Told()
        with pytest.raises(DataError, match=r"Atest0\.png: damaged"):
            predict_folder(checkpoint, [folder], tmp_path / "out", overlay="png", progress=told)
        assert "0 of 2 photographs are done already" in told.text
        assert f"have changed: {folder / 'Atest0.png'}" in told.text
        assert "1 photograph of earlier calls is not given now" in told.text
        names = [Path(row["photograph"]).stem for row in rows_of(table)]
        assert names == ["Atest1", "Atest2"]
        for kind in ("masks", "overlays"):
            assert sorted(path.stem for path in (tmp_path / "out" / kind).iterdir()) == names

    def test_a_changed_photograph_is_done_again(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        shutil.copy(folder / "Atest1.png", folder / "Atest0.png")
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        assert model.calls == 1
        inputs = {Path(row["photograph"]).stem: row["inputs"] for row in rows_of(table)}
        assert len(inputs) == 4
        assert inputs["Atest0"] == inputs["Atest1"]

    def test_another_photograph_of_the_same_name_is_refused_by_name(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        before = table.read_bytes()
        (tmp_path / "second").mkdir()
        Image.new("RGB", (90, 90)).save(tmp_path / "second/Atest0.png")
        with pytest.raises(
            RunError, match=r"other photographs with the same names.*second/Atest0\.png \(there: .*image/A"
        ):
            predict_folder(checkpoint, [tmp_path / "second"], tmp_path / "out")
        assert table.read_bytes() == before
        shutil.copy(folder / "Atest0.png", tmp_path / "second/Atest0.png")  # the same photograph elsewhere
        model = drawn()
        predict_folder(checkpoint, [tmp_path / "second"], tmp_path / "out")
        assert model.calls == 0

    def test_what_is_missing_is_made_again(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        (tmp_path / "out/masks/Atest2.png").unlink()
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        assert model.calls == 1
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg")
        assert model.calls == 4
        assert len(list((tmp_path / "out/overlays").glob("*.jpg"))) == 4
        assert len(rows_of(tmp_path / "out/cases.csv")) == 4

    def test_new_truth_is_scored(self, drawn, checkpoint, photographs, tmp_path):
        truth = [str(photographs / "mask")]
        drawn()
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=truth)
        shutil.copy(photographs / "mask/Atest1.png", photographs / "mask/Atest0.png")
        model = drawn()
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=truth)
        assert model.calls == 1
        with pytest.raises(RunError, match="made with --truth; do so again"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")

    @pytest.mark.parametrize("value", ["many", "inf", "-1", "nan"])
    def test_a_table_of_impossible_numbers_is_refused(self, drawn, checkpoint, folder, tmp_path, value):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        header, first, *rest = table.read_text().splitlines()
        fields = dict(zip(header.split(","), first.split(","), strict=True)) | {"framing": value, "warning": "framing"}
        table.write_text("\n".join([header, ",".join(fields.values()), *rest, ""]))
        with pytest.raises(RunError, match=r"framing of .*Atest0\.png is damaged; choose another --out"):
            predict_folder(checkpoint, [folder], tmp_path / "out")

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    @pytest.mark.usefixtures("hears_ctrl_c")
    def test_signals_stop_between_whole_files(self, drawn, checkpoint, folder, tmp_path, command, number, code):
        drawn(before=stop_at(2, lambda: os.kill(os.getpid(), number)))
        before = signal.getsignal(signal.SIGTERM)
        told = command("predict", checkpoint, folder, "--out", "out", code=code).err
        assert "stopped: 1 of 4 photographs are done; the same command goes on from there" in told
        assert signal.getsignal(signal.SIGTERM) is before
        assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["Atest0.png"]
        drawn()
        command("predict", checkpoint, folder, "--out", "out")
        assert len(rows_of(tmp_path / "out/cases.csv")) == 4

    @pytest.mark.parametrize(
        ("options", "suffix"),
        [
            ((), None),
            (("--overlay",), ".jpg"),
            (("--overlay", "png"), ".png"),
            (("--overlay=png",), ".png"),
            (("--overlay", "jpeg"), ".jpg"),
        ],
    )
    def test_overlays_have_the_format_that_is_named(
        self, drawn, checkpoint, folder, tmp_path, command, options, suffix
    ):
        for number, arguments in enumerate([(checkpoint, folder, *options), (*options, checkpoint, folder)]):
            drawn()
            command("predict", *arguments, "--out", f"out{number}")
            found = {path.suffix for path in (tmp_path / f"out{number}").glob("overlays/*")}
            assert found == ({suffix} if suffix else set())

    def test_a_folder_named_like_a_format_is_a_folder(self, drawn, checkpoint, folder, tmp_path, command):
        folder.rename(tmp_path / "png")
        drawn()
        command("predict", checkpoint, "--overlay", "--out", "out", "--", "png")
        assert {path.suffix for path in tmp_path.glob("out/overlays/*")} == {".jpg"}

    def test_the_record_says_what_made_the_predictions(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        record = json.loads((tmp_path / "out/predictions.json").read_text())
        assert record["made_by"]["precision"] == "fp32"
        assert record["framing"] == {"low": 0.3, "high": 0.8}


class TestOverlap:
    """Photographs are read, predicted and written at the same time."""

    def test_every_step_sees_all_in_order_and_few_are_on_their_way(self):
        began, settled, most = [], [], []

        def read(item):
            began.append(item)
            return item

        def compute(batch):
            most.append(len(began) - len(settled))
            assert len(batch) <= 3
            return batch

        overlapped(range(50), read, compute, lambda item: -item, settled.append, batch=3, threads=4, window=lambda: 5)
        assert settled == [-item for item in range(50)]
        assert max(most) <= 2 * 5 + 3

    def test_what_was_computed_is_settled_before_an_interrupt_ends_it(self):
        settled = []

        def compute(batch):
            if batch == [3]:
                raise KeyboardInterrupt
            return batch

        with pytest.raises(KeyboardInterrupt):
            overlapped(range(9), lambda item: item, compute, str, settled.append, batch=1, threads=2, window=lambda: 9)
        assert settled == ["0", "1", "2"]

    def test_nothing_is_settled_after_a_fault(self):
        settled = []

        def finish(item):
            if item == 2:
                raise RunError("full")
            return item

        with pytest.raises(RunError, match="full"):
            overlapped(range(9), lambda item: item, list, finish, settled.append, batch=2, threads=2, window=lambda: 9)
        assert settled == [0, 1]

    def test_masks_do_not_depend_on_the_batch(self, network):
        predictor = Predictor(network, scoring=Scoring(threshold=0.5))
        images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
        alone = [predictor.logits_of_batch([image], image.shape)[0] for image in images]
        assert predictor.batch == 1
        predictor.batch = 4
        seen = []
        predictor.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        together = predictor.logits_of_batch(list(images), (64, 64))
        single = predictor.logits_of_batch([images[0]], (64, 64))
        assert seen == [4, 4]
        assert torch.equal(single[0], together[0])
        torch.testing.assert_close(together, torch.stack(alone))

    def test_a_gpu_s_batch_is_what_its_memory_holds(self, network, monkeypatch):
        predictor = Predictor(network)
        predictor.device = torch.device("cuda")
        one = 64**2 * 85 * 2**20 / 256**2
        for free, batch in ((0, 1), (6 * one, 2), (8 * one, 4), (2**40, 32)):
            monkeypatch.setattr("torch.cuda.mem_get_info", lambda device, free=free: (free, 2**41))
            predictor.__dict__.pop("batch", None)
            assert predictor.batch == batch
        predictor.scoring = NATIVE
        del predictor.batch
        assert predictor.batch == 1

    def test_little_memory_changes_nothing_but_the_time(self, checkpoint, photographs, tmp_path, monkeypatch):
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")
        monkeypatch.setattr("fundus_seg.inference.job.memory_free", lambda: 0)
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "other", cores=8)
        assert written_in(tmp_path / "other") == written_in(tmp_path / "out")

    def test_rows_stand_in_the_order_of_the_photographs(self, drawn, checkpoint, photographs, tmp_path):
        drawn()
        last = photographs / "image/Atest3.png"
        predict_folder(checkpoint, [last], tmp_path / "out")
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", cores=4)
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "whole")
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")

    def test_the_compiler_of_torch_and_ray_stay_away(self, checkpoint, photographs, tmp_path):
        program = (
            "import sys; from fundus_seg_cli.main import main\n"
            "try: main()\n"
            "finally: print(sorted({'torch._dynamo', 'ray', 'lightning'} & set(sys.modules)), file=sys.stderr)"
        )
        command = ["predict", checkpoint, photographs / "image/Atest0.png", "--out", tmp_path / "out"]
        told = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=True)
        assert told.stderr.splitlines()[-1] == "[]"


def written_in(out):
    """The bytes of all files that are not hidden, by their paths below the folder."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


class TestShards:
    """Several machines that write into one folder."""

    @pytest.fixture
    def folder(self, photographs):
        for number in range(4, 12):
            shutil.copy(photographs / f"image/Atest{number % 4}.png", photographs / f"image/Atest{number}.png")
        return photographs / "image"

    def test_shards_are_disjoint_and_whole_and_do_not_move(self):
        names = [f"Atest{number}" for number in range(1000)]
        parts = [{name for name in names if Shard(number, 4).holds(name)} for number in range(1, 5)]
        assert sum(map(len, parts)) == 1000
        assert set().union(*parts) == set(names)
        assert min(map(len, parts)) > 200
        assert [name for name in names[:8] if Shard(1, 2).holds(name)] == ["Atest0", "Atest2", "Atest6"]

    @pytest.mark.parametrize("text", ["0/4", "5/4", "x", "", "1/0", "-1/4", "1/4/4", "1.0/4", " 1/4", "\u0661/4"])
    def test_what_is_no_shard_is_refused(self, checkpoint, folder, command, text):
        told = command("predict", checkpoint, folder, "--out", "out", f"--shard={text}", code=2).err
        assert "write I/N with I from 1 to N" in told
        assert told.count("\n") == 1

    def test_shards_together_write_what_one_command_writes(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "whole", overlay="jpeg")
        model = drawn()
        for number in (2, 3, 1):
            table = predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg", shard=Shard(number, 3))
            assert table == tmp_path / "out/cases.csv"
        assert model.calls == 12
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")
        model = drawn()
        for shard in (Shard(1, 5), None):
            predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg", shard=shard)
        assert model.calls == 0

    def test_shards_that_were_killed_are_seen_by_any_later_command(self, drawn, checkpoint, folder, tmp_path):
        def interrupt():
            raise KeyboardInterrupt

        for number in (1, 2):
            drawn(before=stop_at(3, interrupt))
            with pytest.raises(KeyboardInterrupt):
                predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(number, 2))
        assert not (tmp_path / "out/cases.csv").exists()
        model, told = drawn(), Told()
        predict_folder(checkpoint, [folder], tmp_path / "out", progress=told)
        assert "4 of 12 photographs are done already" in told.text
        assert model.calls == 8
        predict_folder(checkpoint, [folder], tmp_path / "whole")
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")

    def test_shards_at_the_same_time_share_no_file(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        with ThreadPoolExecutor(3) as pool:
            calls = [
                pool.submit(predict_folder, checkpoint, [folder], tmp_path / "out", shard=Shard(number, 3))
                for number in (1, 2, 3)
            ]
            tables = {call.result() for call in calls}
        assert tables <= {tmp_path / "out/cases.csv", *(tmp_path / f"out/shards/{n}-of-3/cases.csv" for n in (1, 2, 3))}
        predict_folder(checkpoint, [folder], tmp_path / "out")
        predict_folder(checkpoint, [folder], tmp_path / "whole")
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")

    @pytest.mark.parametrize(
        ("first", "second", "refused"),
        [
            (None, Shard(1, 2), "is writing here without --shard"),
            (Shard(1, 2), None, "is writing shard 1/2 here"),
            (Shard(1, 2), Shard(2, 3), "is writing shard 1/2 here"),
            (Shard(1, 2), Shard(1, 2), "is writing here"),
            (Shard(1, 2), Shard(2, 2), None),
        ],
    )
    def test_commands_that_may_do_the_same_photographs_refuse_each_other(
        self, drawn, checkpoint, folder, tmp_path, monkeypatch, first, second, refused
    ):
        def other():
            monkeypatch.setattr("fundus_seg.inference.predict.load_model", lambda path, **_: Drawn())
            if refused:
                with pytest.raises(BusyError, match=refused):
                    predict_folder(checkpoint, [folder], tmp_path / "out", shard=second)
            else:
                predict_folder(checkpoint, [folder], tmp_path / "out", shard=second)

        drawn(before=stop_at(1, other))
        predict_folder(checkpoint, [folder], tmp_path / "out", shard=first)
        predict_folder(checkpoint, [folder], tmp_path / "out")
        assert len(rows_of(tmp_path / "out/cases.csv")) == 12

    def test_another_model_s_shard_is_refused(self, drawn, checkpoint, folder, tmp_path):
        def interrupt():
            raise KeyboardInterrupt

        drawn(before=stop_at(2, interrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(1, 2))
        drawn()
        for shard in (None, Shard(2, 2)):
            with pytest.raises(RunError, match="holds other predictions"):
                predict_folder(checkpoint, [folder], tmp_path / "out", precision="bf16", shard=shard)

    def test_a_shard_tells_of_its_own_photographs_alone(self, drawn, checkpoint, folder, tmp_path):
        (folder / "Atest1.png").write_bytes(b"")
        drawn()
        (own,) = [Shard(number, 2) for number in (1, 2) if Shard(number, 2).holds("Atest1")]
        told = Told()
        predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(3 - own.number, 2), progress=told)
        count = sum(not own.holds(f"Atest{number}") for number in range(12))
        assert f"{count} of {count} photographs are done" in told.lines[-1]
        with pytest.raises(DataError, match=r"Atest1\.png: not an image"):
            predict_folder(checkpoint, [folder], tmp_path / "out", shard=own)

    def test_ray_does_all_shards(self, checkpoint, folder, command):
        told = command("predict", checkpoint, folder, "--out", "out", "--shard=1/2", "--executor=ray", code=2).err
        assert "leave --shard out" in told


class TestTable:
    """The rows say what the masks show, and parse back."""

    def test_rows_count_the_pixels_of_the_mask_file(self, drawn, checkpoint, photographs, tmp_path):
        """The case c22: a cup larger than the disc."""
        drawn(disc=0.4, cup=0.6)
        told = Told()
        table = predict_folder(
            checkpoint,
            [photographs / "image"],
            tmp_path / "out",
            truth=[str(photographs / "mask")],
            overlay="jpeg",
            progress=told,
        )
        for row in rows_of(table):
            name = Path(row["photograph"]).stem
            disc, cup = read_mask(tmp_path / f"out/masks/{name}.png")
            assert (int(row["disc_pixels"]), int(row["cup_pixels"])) == (disc.sum(), cup.sum())
            assert float(row["vertical_cdr"]) == 1
            raw = Drawn(disc=0.4, cup=0.6)(read_image(photographs / f"image/{name}.png"))
            assert int(row["cup_pixels_outside_disc"]) == (raw[1] & ~raw[0]).sum() > 0
            assert row["warning"] == "cup_outside_disc"
            true = read_mask(photographs / f"mask/{name}.png")
            assert float(row["dsc_cup"]) == pytest.approx(2 * (cup & true[1]).sum() / (cup.sum() + true[1].sum()))
        assert "warning: 4 of 4 photographs: the cup leaves the disc" in told.text

    @pytest.mark.parametrize(
        ("size", "warns"), [(0.11, True), (0.23, True), (0.25, False), (0.5, False), (0.98, False)]
    )
    def test_a_disc_framed_otherwise_than_in_training_is_told(
        self, drawn, checkpoint, photographs, tmp_path, size, warns
    ):
        drawn(disc=size, cup=0.05)
        told = Told()
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", progress=told)
        assert [row["warning"] for row in rows_of(table)] == 4 * ["framing" * warns]
        assert float(rows_of(table)[0]["framing"]) == pytest.approx(size, abs=0.01)
        line = "photographs: disc is 11 % of the frame, the model was trained on 30-80 %: not framed as in training"
        assert (f"warning: 4 of 4 {line}" in told.text) == (size == 0.11)

    def test_a_model_that_does_not_know_its_framing_says_so(self, drawn, checkpoint, photographs, tmp_path):
        model, told = drawn(disc=0.05, cup=0.01), Told()
        model.framing = None
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", progress=told)
        assert "framing is not checked" in told.text
        assert {row["warning"] for row in rows_of(table)} == {""}

    def test_no_disc_is_told(self, drawn, checkpoint, photographs, tmp_path):
        drawn(disc=0, cup=0)
        told = Told()
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", overlay="png", progress=told)
        assert {(row["warning"], row["vertical_cdr"]) for row in rows_of(table)} == {("no_disc", "")}
        assert "warning: 4 of 4 photographs: no disc found" in told.text

    @pytest.mark.parametrize(
        ("kind", "found"),
        [
            *((kind, True) for kind in ("black", "white", "grey", "red", "one pixel", "8 x 8", "noise", "a date")),
            *((kind, False) for kind in ("eye", "eye in poor light", "grey eye", "ramp")),
        ],
    )
    def test_a_picture_of_one_colour_is_told(self, drawn, checkpoint, photographs, tmp_path, kind, found):
        colours = {"black": 0, "white": 255, "grey": 127, "red": (200, 30, 10), "one pixel": 90, "8 x 8": 60}
        sizes = {"one pixel": 1, "8 x 8": 8}
        eye = read_image(photographs / "image/Atest0.png")
        picture = np.full((*2 * (sizes.get(kind, 300),), 3), colours.get(kind, 0), np.uint8)
        if kind == "noise":
            picture += np.random.default_rng(0).normal(4, 1.5, picture.shape).clip(0, 9).astype(np.uint8)
        elif kind == "a date":
            cv2.putText(picture, "2026-11-26", (5, 295), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
        elif kind == "ramp":
            picture += np.linspace(0, 255, 300).astype(np.uint8)[:, None, None]
        elif "eye" in kind:
            picture = {"eye": eye, "eye in poor light": eye // 8, "grey eye": eye[..., :1].repeat(3, axis=2)}[kind]
        Image.fromarray(picture).save(tmp_path / "picture.png")
        drawn()
        told = Told()
        table = predict_folder(checkpoint, [tmp_path / "picture.png"], tmp_path / "out", overlay="png", progress=told)
        assert ("one_colour" in rows_of(table)[0]["warning"].split(";")) == found
        assert ("warning: 1 of 1 photographs: of one colour, with no eye to be seen" in told.text) == found

    def test_an_overlay_says_what_there_is(self, photographs):
        image, true = read_image(photographs / "image/Atest0.png"), read_mask(photographs / "mask/Atest0.png")

        def texts(disc, cup, true=None, image=image):
            masks = Drawn(disc, cup)(image)
            return texts_of(row_of(Path("a"), image, masks, true, framing=None, phantom=False, inputs=None))

        assert texts(0.5, 0.25) == ["vCDR 0.50"]
        assert texts(0.5, 0) == ["no cup found"]
        assert texts(0, 0, true) == ["no disc found", "Dice disc 0.0", "Dice cup 0.0"]
        assert texts(0.5, 0, image=0 * image) == ["no cup found", "a picture of one colour"]

    def test_a_model_of_the_phantom_is_told_of_other_photographs(self, drawn, checkpoint, photographs, tmp_path):
        make_phantom(tmp_path / "phantom", per_domain=3)
        model, told = drawn(), Told()
        model.phantom = True
        own = sorted((tmp_path / "phantom/Domain1").rglob("image/*.png"))
        table = predict_folder(checkpoint, [photographs / "image", *own], tmp_path / "out", progress=told)
        warnings = [row["warning"] for row in rows_of(table)]
        assert warnings == 4 * ["phantom_model"] + len(own) * [""]
        assert f"warning: 4 of {4 + len(own)} photographs: not the phantom's" in told.text

    def test_the_bar_ends_where_it_should_with_bad_photographs_too(self, drawn, checkpoint, photographs, tmp_path):
        (photographs / "image/Atest1.png").write_bytes(b"")
        drawn()
        told = Told()
        with pytest.raises(DataError, match="not an image"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", progress=told)
        assert told.steps == told.total == 4

    @pytest.mark.parametrize(
        "name",
        [
            *(b"=cmd()|x", b"+1", b"@sum", b"-dash", b"new\nline", b"re\rturn", b"both\r\n", b'quo"te,d', b"tab\there"),
            *(
                b"NA",
                b"007",
                b"esc\x1b[31mred",
                b"not-\xe9-utf8",
                b"a.b",
                b" lead",
                b"x.jpg",
                b"eye :100: a",
                b"a" * 251,
            ),
            *("e\u0301cole".encode(), "\u773c".encode()),
        ],
    )
    def test_any_name_parses_back_and_is_found_again(self, drawn, checkpoint, photographs, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        photograph = Path(os.fsdecode(name + b".png"))
        shutil.copy(photographs / "image/Atest0.png", photograph)
        shutil.copy(photographs / "image/Atest1.png", "after.png")
        for calls in (2, 0):
            model = drawn()
            table = predict_folder(checkpoint, [photograph, Path("after.png")], Path("out"), overlay="jpeg")
            assert model.calls == calls
        formula = name[:1] in b"=+-@"
        shown = formula * "./" + str(photograph).replace("\udce9", "\\xe9")
        assert [row["photograph"] for row in rows_of(table)] == [shown, "after.png"]
        assert pd.read_csv(table)["photograph"].tolist() == [shown, "after.png"]
        assert pd.read_csv(table)["height"].tolist() == [90, 90]
        assert len(list(Path("out/masks").iterdir())) == len(list(Path("out/overlays").iterdir())) == 2


class TestTruth:
    """True masks of any coding are recognised, as `score` does it."""

    @pytest.mark.parametrize("greys", [(0, 1, 2), (255, 128, 0), (0, 128, 255), (0, 255, 128)])
    def test_codings(self, drawn, checkpoint, photographs, tmp_path, greys):
        for path in (photographs / "mask").iterdir():
            disc, cup = Drawn()(read_image(photographs / f"image/{path.name}"))
            labels = np.array(greys, np.uint8)[disc.astype(int) + cup]
            Image.fromarray(labels).save(path)
        drawn()
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])
        assert {(row["dsc_disc"], row["dsc_cup"]) for row in rows_of(table)} == {("1.0", "1.0")}

    def test_an_open_coding_is_asked_for(self, drawn, checkpoint, photographs, tmp_path):
        for path in (photographs / "mask").iterdir():
            Image.new("L", (90, 90)).save(path)  # empty labels, or a cup of dofe that fills the frame
        drawn()
        with pytest.raises(DataError, match="--truth-coding"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])

    def test_a_given_coding_that_the_truth_contradicts_is_refused(self, drawn, checkpoint, photographs, tmp_path):
        for path in (photographs / "mask").iterdir():
            greys = np.asarray(Image.open(path))
            Image.fromarray(np.select([greys == 255, greys == 0], [0, 255], 128).astype(np.uint8)).save(path)
        drawn()
        truth = [str(photographs / "mask")]
        with pytest.raises(DataError, match=r"4 of 4 masks of the truth show cup 255, rim 128, background 0"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=truth, truth_coding=DOFE)
        assert not (tmp_path / "out").exists()

    def test_true_discs_and_cups_that_are_exchanged_are_refused(self, drawn, checkpoint, photographs, tmp_path):
        for path in (photographs / "mask").iterdir():
            greys = np.asarray(Image.open(path))
            for structure, mask in (("disc", greys < 255), ("cup", greys == 0)):
                (tmp_path / structure).mkdir(exist_ok=True)
                Image.fromarray(np.uint8(255) * mask).save(tmp_path / structure / path.name)
        drawn()
        discs, cups = str(tmp_path / "disc"), str(tmp_path / "cup")
        with pytest.raises(DataError, match="4 of 4 masks of the truth show a disc inside its cup"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[cups, discs])
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[discs, cups])

    def test_stray_truth_is_told_and_stands_in_its_row(self, drawn, checkpoint, photographs, tmp_path):
        labels = np.asarray(Image.open(photographs / "mask/Atest2.png")).copy()
        labels[:3, :3] = 0
        Image.fromarray(labels).save(photographs / "mask/Atest2.png")
        drawn()
        for _ in range(2):  # the second call finds all done, and says it again
            told = Told()
            table = predict_folder(
                checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")], progress=told
            )
            strays = ["stray_truth" in row["warning"].split(";") for row in rows_of(table)]
            assert strays == [False, False, True, False]
            assert "warning: 1 of 4 photographs: the true mask has stray parts" in told.text

    def test_photographs_without_truth_are_told(self, drawn, checkpoint, photographs, tmp_path):
        (photographs / "mask/Atest2.png").unlink()
        drawn()
        told = Told()
        table = predict_folder(
            checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")], progress=told
        )
        assert [row["dsc_disc"] == "" for row in rows_of(table)] == [False, False, True, False]
        assert "1 photograph, not scored, without a true mask: Atest2" in told.text


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
