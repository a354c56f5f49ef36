"""Several networks as one, and the mirror image of a photograph as a second view of it."""

from __future__ import annotations

import json
import math
import shutil
from itertools import product
from pathlib import Path
from typing import ClassVar

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from predictions import Told, rows_of, written_in
from small_runs import Lines, settings, tiny_network

from fundus_seg import load_ensemble, load_model
from fundus_seg.builtins import POSITIONAL
from fundus_seg.data.dataset import FundusDataset
from fundus_seg.data.framing import Framing
from fundus_seg.data.io import read_mask
from fundus_seg.data.layout import open_root
from fundus_seg.errors import CheckpointError, ProtocolError, RunError, UsageError
from fundus_seg.evaluation import evaluate, evaluate_runs
from fundus_seg.evaluation.ensembles import RunEnsemble, ensembles_of
from fundus_seg.evaluation.predictions import write_overlays
from fundus_seg.evaluation.score_case import score_case
from fundus_seg.inference.ensemble import Ensemble
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.members import is_model, models_and_photographs
from fundus_seg.inference.predict import Predictor
from fundus_seg.inference.shards import Shard
from fundus_seg.models.checkpoint import network_state, write_checkpoint
from fundus_seg.protocol import Combination, Scoring, combined
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.folder import RunFolder
from fundus_seg.training import train
from fundus_seg.training.selection import weights_state


def small_network(seed=0, op="tvconv", **changes):
    return tiny_network(op, seed=seed, **changes).eval()


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


@pytest.fixture
def two(tmp_path):
    """Two checkpoints of one shape and other weights."""
    paths = [tmp_path / f"model{seed}.ckpt" for seed in range(2)]
    for seed, path in enumerate(paths):
        usage = {"image_interpolation": "lanczos", "scoring": {"threshold": 0.5}}
        write_checkpoint(path, network_state(small_network(seed), usage))
    return paths


class Constant(torch.nn.Module):
    """Its logits are the same two numbers everywhere."""

    def __init__(self, disc, cup, size=4):
        super().__init__()
        self.spec = {"image_size": size, "op": "conv"}
        self.values = torch.tensor([disc, cup])

    def forward(self, x):
        return self.values[None, :, None, None].expand(len(x), 2, *x.shape[2:])


class LeftHalf(torch.nn.Module):
    """Its logits are 2 on the left half of whatever it sees, and -4 on the right: an operator that knows position."""

    spec: ClassVar = {"image_size": 8, "op": "tvconv"}

    def forward(self, x):
        columns = torch.where(torch.arange(x.shape[3]) < x.shape[3] / 2, 2.0, -4.0)
        return columns.expand(len(x), 2, *x.shape[2:])


class TestMean:
    def test_the_mean_is_that_of_the_probabilities(self):
        """Of logits 0 and 4, the mean probability is .741: below the threshold, above which the mean logit lies."""
        members = [Predictor(Constant(0.0, 4.0)), Predictor(Constant(4.0, 4.0, size=8))]
        ensemble = Ensemble(members)
        image = np.zeros((5, 7, 3), np.uint8)
        found = ensemble.probabilities(image)
        assert (found.shape, found.dtype) == ((2, 5, 7), np.float32)
        np.testing.assert_allclose(found[0], (0.5 + sigmoid(4)) / 2, rtol=1e-6)
        np.testing.assert_allclose(found[1], sigmoid(4), rtol=1e-6)
        masks = ensemble(image)
        assert not masks[0].any()
        assert masks[1].all()
        assert sigmoid(2) > Scoring().threshold > found[0].max()

    def test_a_view_is_mirrored_back(self):
        """The left half alone answers: 2 there. Both views together answer alike on both sides."""
        image = np.zeros((8, 8, 3), np.uint8)
        alone, both = Ensemble([Predictor(LeftHalf())]), Ensemble([Predictor(LeftHalf())], views="flip")
        np.testing.assert_allclose(alone.probabilities(image)[0, 0], [sigmoid(2)] * 4 + [sigmoid(-4)] * 4, rtol=1e-6)
        np.testing.assert_allclose(both.probabilities(image), (sigmoid(2) + sigmoid(-4)) / 2, rtol=1e-6)

    @pytest.mark.parametrize("inference", ["resize", "native"])
    @pytest.mark.parametrize("op", ["conv", "tvconv", "coordconv"])
    def test_the_mirror_image_has_the_mirrored_probabilities_to_the_bit(self, op, inference):
        scoring = Scoring(inference=inference, threshold=0.5)
        members = [Predictor(small_network(seed, op), scoring=scoring) for seed in range(2)]
        ensemble = Ensemble(members, views="flip")
        image = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
        mirrored = np.ascontiguousarray(image[:, ::-1])
        np.testing.assert_array_equal(ensemble.probabilities(mirrored), ensemble.probabilities(image)[..., ::-1])
        np.testing.assert_array_equal(ensemble.raw_masks(mirrored), ensemble.raw_masks(image)[..., ::-1])
        alone = Ensemble(members)
        assert (alone.probabilities(mirrored) != alone.probabilities(image)[..., ::-1]).any()

    def test_the_same_in_batches(self, monkeypatch):
        members = [Predictor(small_network(seed)) for seed in range(2)]
        ensemble = Ensemble(members, views="flip")
        images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
        alone = [ensemble.probabilities(image) for image in images]
        for member in members:
            member.batch = 4
        logits = ensemble.logits_of_batch([ensemble.prepare(image) for image in images], (40, 40))
        for number, expected in enumerate(alone):
            found = np.stack([ensemble.probability(logits[number], (40, 40), structure) for structure in range(2)])
            np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_members_of_other_protocols_are_refused(self):
        with pytest.raises(ValueError, match="one scoring protocol"):
            Ensemble([Predictor(Constant(0.0, 0.0), scoring=Scoring(threshold=each)) for each in (0.5, 0.75)])

    def test_what_is_known_of_the_members_training(self):
        def ensemble(*framings, phantoms=(False, False)):
            return Ensemble(
                [
                    Predictor(Constant(0.0, 0.0), framing=framing, phantom=phantom)
                    for framing, phantom in zip(framings, phantoms, strict=True)
                ]
            )

        assert ensemble(Framing(0.3, 0.7), Framing(0.5, 0.9)).framing == Framing(0.5, 0.7)
        assert ensemble(Framing(0.3, 0.4), Framing(0.5, 0.9)).framing is None
        assert ensemble(Framing(0.3, 0.7), None).framing is None
        known = [ensemble(None, None, phantoms=each).phantom for each in ((True, None), (False, None), (False, False))]
        assert known == [True, None, False]


class TestArguments:
    """Models stand first; what they are is told by what they hold."""

    @pytest.fixture
    def runs(self, two, tmp_path):
        for seed, path in enumerate(two):
            run = RunFolder(tmp_path / f"runs/paper/A/tvconv/seed-{seed}")
            run.checkpoint("best").parent.mkdir(parents=True)
            shutil.copy(path, run.checkpoint("best"))
        return tmp_path / "runs/paper/A/tvconv"

    def test_models_and_photographs_are_told_apart(self, runs, two, photographs, tmp_path):
        unnamed = Path(shutil.copy(two[0], tmp_path / "weights"))
        models = [runs / "seed-0", two[1], unnamed]
        folder = photographs / "image"
        assert models_and_photographs([*models, folder, folder / "Atest0.png"]) == (
            models,
            [folder, folder / "Atest0.png"],
        )
        assert models_and_photographs([folder, folder]) == ([folder], [folder])  # the first is the model, and refused
        assert not is_model(folder)
        assert not is_model(tmp_path / "nowhere")
        (folder / "seed-0").mkdir()
        shutil.copytree(runs / "seed-0", folder / "below/seed-0")
        assert not is_model(folder)  # there are photographs in it

    def test_a_model_behind_photographs_and_models_alone_are_refused(self, command, two, photographs):
        told = command("predict", two[0], photographs / "image", two[1], "--out", "out", code=2).err
        assert f"{two[1]}: a model behind {photographs / 'image'}, a photograph; give all models first" in told
        told = command("predict", *two, "--out", "out", code=2).err
        assert f"{two[1]}: a model, and no photograph behind it; give photographs" in told

    def test_a_network_is_given_once(self, two, photographs, tmp_path):
        copy = Path(shutil.copy(two[0], tmp_path / "copy.ckpt"))
        with pytest.raises(UsageError, match=rf"{copy}: the same network as {two[0]}; give each network once"):
            predict_folder([*two, copy], [photographs / "image"], tmp_path / "out")

    def test_networks_that_do_not_fit_together_are_named(self, two, photographs, tmp_path):
        other = tmp_path / "other.ckpt"
        usage = {"image_interpolation": "lanczos", "scoring": {"threshold": 0.25}}
        write_checkpoint(other, network_state(small_network(7), usage))
        with pytest.raises(UsageError, match=r"does not fit together with \S+ckpt \(threshold \S+ there, \S+ here\)"):
            predict_folder([two[0], other], [photographs / "image"], tmp_path / "out")
        framings = [{"low": 0.1, "high": 0.2}, {"low": 0.5, "high": 0.9}]
        for number, framing in enumerate(framings):
            usage = {"image_interpolation": "lanczos", "scoring": {}, "framing": framing}
            write_checkpoint(tmp_path / f"framed{number}.ckpt", network_state(small_network(number), usage))
        with pytest.raises(UsageError, match="trained on other framings of the disc than"):
            load_ensemble([tmp_path / "framed0.ckpt", tmp_path / "framed1.ckpt"])
        for phantom in (False, True):
            usage = {"image_interpolation": "lanczos", "scoring": {}, "phantom": phantom}
            write_checkpoint(tmp_path / f"{phantom}.ckpt", network_state(small_network(phantom), usage))
        with pytest.raises(UsageError, match="one was trained on the phantom, the other on patients' photographs"):
            load_ensemble([tmp_path / "True.ckpt", tmp_path / "False.ckpt"])
        assert not (tmp_path / "out").exists()

    def test_a_missing_member_is_named(self, two, tmp_path):
        with pytest.raises(CheckpointError, match="nowhere: no such run or checkpoint"):
            load_ensemble([two[0], tmp_path / "nowhere"])

    def test_networks_of_other_sizes_and_operators_fit(self, two, tmp_path):
        usage = {"image_interpolation": "bilinear", "scoring": {"threshold": 0.5}}
        write_checkpoint(tmp_path / "large.ckpt", network_state(small_network(3, "conv", image_size=96), usage))
        ensemble = load_ensemble([*two, tmp_path / "large.ckpt"])
        image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        own = [load_model(path).probabilities(image) for path in (*two, tmp_path / "large.ckpt")]
        np.testing.assert_allclose(ensemble.probabilities(image), np.mean(own, axis=0), atol=1e-6)

    def test_operators_that_know_position_are_warned_of_unless_mirrored_photographs_trained_them(self, tmp_path):
        def told(op, **usage):
            usage = {"image_interpolation": "lanczos", "scoring": {}, **usage}
            write_checkpoint(tmp_path / "model.ckpt", network_state(small_network(0, op), usage))
            lines = Lines()
            load_ensemble([tmp_path / "model.ckpt"], views="flip", progress=lines)
            return lines.lines

        assert [op for op in (*POSITIONAL, "depthwise", "sasa") if told(op)] == [*POSITIONAL]
        assert told("tvconv")[0].startswith("warning: --views flip with tvconv, which knows the left side")
        assert told("tvconv", mirrored=True) == []

    def test_a_checkpoint_says_whether_mirrored_photographs_trained_it(self):
        plain = settings()
        train_on_mirrored = plain.train.model_copy(update={"augment": "colour+flip"})
        mirrored = plain.model_copy(update={"train": train_on_mirrored})
        assert (plain.one_sided, mirrored.one_sided) == ("tvconv", None)
        usages = [weights_state(small_network(), config, 1, {})["usage"] for config in (plain, mirrored)]
        assert [usage.get("mirrored") for usage in usages] == [None, True]


class TestPredict:
    def test_any_order_is_the_same_ensemble(self, two, photographs, tmp_path):
        folder = [photographs / "image"]
        predict_folder(two, folder, tmp_path / "out", probabilities=True)
        told = Told()
        predict_folder(two[::-1], folder, tmp_path / "out", probabilities=True, progress=told)
        assert "4 of 4 photographs are done already" in told.text
        assert f"the mean of 2 networks predicts: {two[1]}, {two[0]}" in told.text
        predict_folder(two[::-1], folder, tmp_path / "other", probabilities=True)
        assert written_in(tmp_path / "out") == written_in(tmp_path / "other")
        record = json.loads((tmp_path / "out/predictions.json").read_text())
        assert len(set(record["made_by"]["checkpoint"])) == 2

    def test_masks_are_those_of_the_mean(self, two, photographs, tmp_path):
        predict_folder(two, [photographs / "image"], tmp_path / "out", views="flip")
        ensemble = load_ensemble(two, views="flip")
        for path in sorted((photographs / "image").iterdir()):
            masks = ensemble(np.asarray(Image.open(path)))
            np.testing.assert_array_equal(
                read_mask(tmp_path / f"out/masks/{path.name}"), [masks[0], masks[0] & masks[1]]
            )

    def test_what_another_ensemble_or_view_made_is_not_mixed(self, two, photographs, tmp_path):
        folder = [photographs / "image"]
        for models, options in ((two, {}), (two[0], {"views": "flip"})):
            out = tmp_path / f"out-{len(options)}"
            predict_folder(models, folder, out, **options)
            before = written_in(out)
            with pytest.raises(RunError, match=r"holds other predictions \((checkpoint|views) .* there, .* now"):
                predict_folder(two[0], folder, out)
            assert written_in(out) == before
        predict_folder(two[0], folder, tmp_path / "plain")
        with pytest.raises(RunError, match=r"\(views none there, flip now\)"):
            predict_folder(two[0], folder, tmp_path / "plain", views="flip")

    def test_a_photograph_is_read_once(self, two, photographs, tmp_path, monkeypatch):
        from fundus_seg.inference import truths

        read, times = truths.read_photograph, []
        monkeypatch.setattr(truths, "read_photograph", lambda path: times.append(path) or read(path))
        predict_folder(two, [photographs / "image"], tmp_path / "out", views="flip", probabilities=True, overlay="jpeg")
        assert len(times) == len(set(times)) == 4

    def test_a_folder_of_runs_is_an_ensemble(self, draw_root, photographs, tmp_path, command):
        for seed in (0, 1):
            train(settings(seed=seed), open_root(draw_root(f"data{seed}")), tmp_path / "runs")
        told = command("predict", "runs", photographs / "image", "--out", "out", "--views", "flip", "--strict", code=3)
        assert "the mean of 2 networks predicts: runs/tiny/A/tvconv/seed-0, runs/tiny/A/tvconv/seed-1" in told.err
        assert "warning: --views flip with tvconv" in told.err
        seeds = [f"runs/tiny/A/tvconv/seed-{seed}" for seed in (1, 0)]
        told = command("predict", *seeds, photographs / "image", "--out", "out", "--views=flip").err
        assert "4 of 4 photographs are done already" in told


class TestProbabilities:
    @pytest.fixture
    def folder(self, photographs):
        return photographs / "image"

    def test_png_of_16_bits(self, two, folder, tmp_path):
        predict_folder(two[0], [folder], tmp_path / "out", probabilities=True)
        predictor = load_model(two[0])
        for path in folder.iterdir():
            expected = predictor.probabilities(np.asarray(Image.open(path)))
            for structure, own in zip(("disc", "cup"), expected, strict=True):
                with Image.open(tmp_path / f"out/probabilities/{structure}/{path.name}") as picture:
                    assert picture.mode in ("I;16", "I")
                    values = np.asarray(picture).astype(np.int64)
                np.testing.assert_array_equal(values, np.rint(own * np.float32(65535)))
        assert rows_of(tmp_path / "out/cases.csv")

    def test_png_of_a_known_value(self, drawn, checkpoint, folder, tmp_path):
        drawn(disc=0.5, cup=0.2)
        predict_folder(checkpoint, [folder], tmp_path / "out", probabilities=True)
        disc = np.asarray(Image.open(tmp_path / "out/probabilities/disc/Atest0.png"))
        assert set(np.unique(disc)) == {0, 65535}
        np.testing.assert_array_equal(disc > 0, read_mask(tmp_path / "out/masks/Atest0.png")[0])

    def test_nifti_lies_where_the_photograph_lies(self, two, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (30, 50), dtype=np.uint8)  # x, y
        affine = np.array([[0, -2.0, 0, 5], [3.0, 0, 0, 7], [0, 0, 1, 0], [0, 0, 0, 1]])
        nibabel.save(nibabel.Nifti1Image(pixels[..., None], affine), tmp_path / "eye.nii.gz")
        predict_folder(two[0], [tmp_path / "eye.nii.gz"], tmp_path / "out", form="nifti", probabilities=True)
        mask = nibabel.load(tmp_path / "out/masks/eye.nii.gz")
        for place, structure in enumerate(("disc", "cup")):
            found = nibabel.load(tmp_path / f"out/probabilities/{structure}/eye.nii.gz")
            assert (found.get_data_dtype(), found.shape) == (np.float32, (30, 50, 1))
            np.testing.assert_array_equal(found.affine, affine)
            assert (found.get_fdata() > 0.5).sum() >= (mask.get_fdata() > place).sum() > -1
            np.testing.assert_array_equal(found.header["pixdim"], mask.header["pixdim"])
        predictor = load_model(two[0])
        from fundus_seg.data.io import read_image
        from fundus_seg.data.nifti import directions

        own = predictor.probabilities(read_image(tmp_path / "eye.nii.gz"))[1]
        exchanged, columns, rows = directions(found)
        voxels = found.get_fdata()[..., 0]
        voxels = (voxels.T if exchanged else voxels)[::columns, ::rows]
        np.testing.assert_array_equal(voxels.T.astype(np.float32), own)

    def test_what_is_missing_is_made_again(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out", probabilities=True)
        assert model.calls == 4
        (tmp_path / "out/probabilities/cup/Atest2.png").unlink()
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out", probabilities=True)
        assert model.calls == 1
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        assert model.calls == 0
        shutil.copy(folder / "Atest1.png", folder / "Atest0.png")
        (folder / "Atest1.png").write_bytes(b"")
        statuses = [row["status"] for row in rows_of(predict_folder(checkpoint, [folder], tmp_path / "out"))]
        assert statuses.index("declined") == 1
        left = sorted(path.name for path in (tmp_path / "out/probabilities/disc").iterdir())
        assert left == ["Atest2.png", "Atest3.png"]  # those of changed photographs are gone with their masks

    def test_shards_write_them_too(self, two, folder, tmp_path):
        options = {"probabilities": True, "views": "flip"}
        predict_folder(two, [folder], tmp_path / "whole", **options)
        for number in (2, 1):
            predict_folder(two, [folder], tmp_path / "out", shard=Shard(number, 2), **options)
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")

    def test_they_are_never_written_over_what_was_given(self, checkpoint, folder, tmp_path):
        given = folder.rename(tmp_path / "cup")
        (tmp_path / "probabilities").mkdir()
        given = given.rename(tmp_path / "probabilities/cup")
        with pytest.raises(Exception, match="choose another --out"):
            predict_folder(checkpoint, [given], tmp_path, probabilities=True)


class TestProtocol:
    def test_what_averages_nothing_keeps_its_digest(self):
        assert combined(Scoring()).digest() == Scoring().digest() == "2080b6ad"
        assert type(combined(Combination(ensemble=True, views="none"))) is Scoring
        flip = combined(Scoring(threshold=0.5), views="flip")
        assert combined(flip) == flip == combined(flip, views="flip")
        assert combined(flip, views="none") == Scoring(threshold=0.5)
        both = product((False, True), ("none", "flip"))
        protocols = [combined(Scoring(), ensemble=ensemble, views=views) for ensemble, views in both]
        assert len({each.digest() for each in protocols}) == 4


class TestEvaluate:
    @pytest.fixture
    def runs(self, draw_root, tmp_path):
        root = open_root(draw_root(size=96))
        return [train(settings(holdout="B", seed=seed), root, tmp_path / "runs") for seed in (0, 1)]

    def test_an_ensemble_is_scored_as_it_predicts(self, runs, tmp_path):
        (ensemble,) = ensembles_of(runs)
        found = evaluate(ensemble, views="flip")
        protocol = Combination(ensemble=True, views="flip")
        assert found.meta.protocol == protocol
        assert found.path == ensemble.evaluation(protocol.digest(), "best")
        assert found.path.parents[2] == runs[0].path.parent
        together = load_ensemble(runs_paths(runs), views="flip")
        rows = []
        for sample in FundusDataset(tmp_path / "data", "B", "test"):
            raw = together.raw_masks(sample.image)
            rows += score_case(together.clean(raw), sample.masks, raw=raw, scoring=protocol)
        assert found.cases["prediction_pixels"].tolist() == [row["prediction_pixels"] for row in rows]
        assert found.cases["dsc"].tolist() == [row["dsc"] for row in rows]
        assert not any((run.path / "evaluations").exists() for run in runs)
        assert evaluate(RunEnsemble.of(dict(enumerate(runs))), views="flip").cases.equals(found.cases)
        assert len(write_overlays(ensemble, found, 2)) == 2

    def test_the_json_names_the_members(self, runs):
        (ensemble,) = ensembles_of(runs)
        evaluate(ensemble)
        found = evaluate(ensemble)
        assert list(found.meta.members) == ["0", "1"]
        assert found.meta.checkpoint_sha256 not in found.meta.members.values()
        assert "members" not in json.loads(evaluate(runs[0]).path.with_suffix(".json").read_text())

    def test_a_changed_member_is_noticed(self, runs):
        (ensemble,) = ensembles_of(runs)
        before = evaluate(ensemble)
        shutil.copy(runs[0].checkpoint("last"), runs[1].checkpoint("best"))
        told = Lines()
        after = evaluate(ensemble, progress=told)
        assert "of another checkpoint or other data; scoring every case again" in told.lines[0]
        assert after.meta.members != before.meta.members

    def test_tables_keep_ensembles_and_runs_apart(self, runs, command):
        (ensemble,) = ensembles_of(runs)
        with pytest.raises(ProtocolError, match=r"two scoring protocols \(ensemble\) in one table"):
            score_table([evaluate(ensemble), evaluate(runs[0])])
        with pytest.raises(ProtocolError, match=r"two scoring protocols \(views\) in one table"):
            score_table([evaluate(runs[1], views="flip"), evaluate(runs[0])])
        report = score_table([evaluate(ensemble)])
        assert "1 ensemble per cell" in report.layout.title
        assert report.layout.columns == ("mean-mask", "tvconv, mean of 2")
        assert set(report.frame["runs"]) == {1}
        assert set(report.frame["over"]) == {"cases"}
        told = command("evaluate", "runs", "--ensemble", "--views", "flip", "--in-domain", "--strict", code=3)
        assert "tvconv, mean of 2" in told.out
        assert "ensemble True (default False), views flip (default none)" in told.out
        assert told.err.count("warning: --views flip with tvconv") == 1
        assert command("evaluate", "runs", "--ensemble", "--views", "flip").out in told.out  # read, not scored again
        told = command("compare", "runs", "--ops", "tvconv,mean-mask", "--ensemble", "--views", "flip")
        assert "tvconv, mean of 2 and mean-mask" in told.out
        told = command("compare", "runs", "--ensemble", "--scoring", "released-code", code=1)
        assert "no scores of best by this protocol; run `fundus-seg evaluate --ensemble` on it" in told.err
        command("compare", "runs", "--ensemble", "--best-of", code=2)

    def test_runs_that_are_alone_are_told(self, runs, draw_root, tmp_path):
        other = train(settings(holdout="A"), open_root(tmp_path / "data"), tmp_path / "runs")
        told = Lines()
        found = evaluate_runs([tmp_path / "runs"], ensemble=True, progress=told)
        assert [each.meta.run.holdout for each in found.evaluations] == ["B"]
        assert (
            f"left out: 1 run, alone with its recipe, holdout and photographs: {other.path}; train another --seed"
            in told.lines
        )
        with pytest.raises(RunError, match="no two runs that differ in their seed alone"):
            evaluate_runs([other.path], ensemble=True)

    def test_runs_that_have_seen_every_domain_are_scored_in_domain(self, runs, tmp_path):
        root = open_root(tmp_path / "data")
        for seed in (0, 1):
            train(settings(holdout="none", seed=seed), root, tmp_path / "runs")
        told = Lines()
        found = evaluate_runs([tmp_path / "runs"], ensemble=True, progress=told)
        assert [each.meta.run.holdout for each in found.evaluations] == ["B"]
        assert [(each.meta.run.holdout, list(each.meta.members)) for each in found.seen] == [("none", ["0", "1"])]

    def test_copies_and_runs_of_other_photographs_are_refused(self, runs, tmp_path):
        copy = tmp_path / "copy/seed-0"
        shutil.copytree(runs[0].path, copy)
        with pytest.raises(RunError, match=r"seed 0 of tvconv, holdout B, as .*; leave one out"):
            ensembles_of([*runs, RunFolder(copy)])
        (ensemble,) = ensembles_of(runs)
        config = runs[1].config.read_text()
        digest = runs[1].read_config()["inputs"]["A/train"]
        runs[1].config.write_text(config.replace(digest, "0" * 16))
        with pytest.raises(RunError, match="no two runs that differ in their seed alone"):
            ensembles_of(runs)
        with pytest.raises(RunError, match=r"seed-1: made with other photographs than \S+seed-0 \(A/train\)"):
            evaluate(ensemble)


def runs_paths(runs):
    return [run.path for run in runs]
