from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_runs import Lines, one_of

from fundus_seg import load_model
from fundus_seg.builtins import OPERATORS
from fundus_seg.config import load_config
from fundus_seg.data import FundusDataset, open_root
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, DataError, ProtocolError, RunError
from fundus_seg.evaluation import predictions
from fundus_seg.evaluation.predictions import write_overlays
from fundus_seg.evaluation.records import read_evaluation
from fundus_seg.evaluation.score_case import FAULTS, score_case
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.ops import TVConv2d
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.identity import RunIdentity
from fundus_seg.training import train


def square(size, top, left, rows, columns):
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + rows, left : left + columns] = True
    return mask


def test_scores_of_a_drawn_case():
    """A 400x400 frame, so one pixel is 2 units: the predicted disc lies 3 pixels right of the true one."""
    truth = np.stack([square(400, 100, 100, 40, 40), square(400, 110, 110, 10, 10)])
    prediction = np.stack([square(400, 100, 103, 40, 40), square(400, 110, 110, 10, 10)])
    disc, cup = score_case(prediction, truth, scoring=Scoring(), case="x")
    assert (disc["structure"], cup["structure"], disc["case"]) == ("disc", "cup", "x")
    assert disc["dsc"] == pytest.approx(2 * 40 * 37 / (2 * 40 * 40))
    assert disc["hd"] == pytest.approx(6.0)
    assert (disc["height"], disc["spacing_y"], disc["truth_pixels"]) == (400, 2.0, 1600)
    assert (cup["dsc"], cup["hd"], cup["asd"]) == (1, 0, 0)


def test_undefined_scores_are_nan():
    full, empty = square(32, 8, 8, 10, 10), np.zeros((32, 32), dtype=bool)
    missed, _ = score_case(np.stack([empty, full]), np.stack([full, full]), scoring=Scoring())
    assert missed["dsc"] == 0
    assert math.isnan(missed["hd"])
    nothing_there, _ = score_case(np.stack([full, full]), np.stack([empty, full]), scoring=Scoring())
    assert math.isnan(nothing_there["dsc"])
    assert math.isnan(nothing_there["hd95"])


def test_released_scoring_differs_as_the_released_code_does():
    released = load_config("released-code", arguments={"holdout": "A"}).scoring
    truth = np.stack([square(64, 8, 8, 40, 40), square(64, 20, 20, 10, 10)])
    prediction = np.stack([square(64, 8, 8, 40, 40) | square(64, 28, 48, 1, 4), square(64, 20, 20, 10, 10)])
    disc, _ = score_case(prediction, truth, scoring=released)
    assert disc["dsc"] == (2 * 1600 + 1) / (1600 + 1604 + 1)
    assert disc["hd"] == 4 * 800 / 64  # a streak four pixels long: never the HD95 that the released code calls HD
    assert disc["hd95"] == 0
    prediction[1] = False
    disc, cup = score_case(prediction, truth, scoring=released)
    assert math.isnan(disc["hd"])  # the cup is empty, and the released check looks there
    assert math.isnan(cup["hd"])


@pytest.fixture
def run(draw_root, tmp_path):
    settings = load_config("tiny", overrides=["train.threads=1"], arguments={"holdout": "B"})
    return train(settings, open_root(draw_root(size=96)), tmp_path / "runs")


def test_evaluation_scores_the_holdout_s_test_split_at_its_own_size(run):
    evaluation = evaluate(run)
    assert sorted(set(evaluation.cases["case"])) == [f"Btest{number}" for number in range(4)]
    assert set(evaluation.cases["height"]) == {96}
    assert evaluation.path == run.evaluation(Scoring().digest(), "best")
    assert evaluation.meta.selection == "source-validation"
    expected = RunIdentity("tvconv", "", "tiny", run.read_config()["train"]["precision"], "B", 0)
    assert evaluation.meta.run == expected
    assert not evaluation.meta.phantom
    assert run.has("DONE")


def test_photographs_of_patients_stay_theirs_beside_the_phantom_s_among_the_sources(draw_root, tmp_path):
    folder = draw_root(size=96)
    for number, image in enumerate(sorted((folder / "Domain1/train/ROIs/image").iterdir())):
        for path in (image, image.parents[1] / "mask" / image.name):
            path.rename(path.with_name(f"phantom-A-{number:03d}.png"))
    root = open_root(folder)
    assert root.phantom
    settings = load_config("tiny", overrides=["train.threads=1", "train.epochs=1"], arguments={"holdout": "B"})
    evaluation = evaluate(train(settings, root, tmp_path / "runs"))
    assert not evaluation.meta.phantom


def test_evaluation_equals_the_predictor_on_each_photograph(run):
    """The front door, photograph in and masks out, gives the very masks that evaluation scores."""
    content = run.read_config()
    dataset = FundusDataset(content["provenance"]["data_root"], "B", "test")
    predictor = load_model(run.path)
    rows = [
        row
        for sample in dataset
        for raw in [predictor.raw_masks(sample.image)]
        for row in score_case(predictor(sample.image), sample.masks, raw=raw, scoring=Scoring(), case=sample.name)
    ]
    scored = evaluate(run).cases
    pd.testing.assert_frame_equal(pd.DataFrame(rows)[scored.columns[2:]], scored[scored.columns[2:]], check_dtype=False)


def crop_all(root, width, height):
    for path in root.rglob("*.png"):
        image = Image.open(path)
        image.crop((0, 0, width, height)).save(path)


@pytest.mark.parametrize("op", one_of("tvconv", *OPERATORS))
def test_native_evaluation_shows_the_network_each_photograph_as_it_is(op, draw_root, tmp_path):
    data = draw_root(size=96)
    crop_all(data, 91, 70)
    settings = load_config("tiny", overrides=["train.threads=1"], arguments={"holdout": "B", "model.op": op})
    run = train(settings, open_root(data), tmp_path / "runs")
    resized, native = evaluate(run), evaluate(run, inference="native")
    assert native.path != resized.path
    assert native.path == run.evaluation(Scoring(inference="native").digest(), "best")
    assert native.meta.protocol == Scoring(inference="native")
    assert set(zip(native.cases["height"], native.cases["width"], strict=True)) == {(70, 91)}
    predictor = load_model(run.path, scoring=native.meta.protocol)
    pixels = [predictor(sample.image).sum() for sample in FundusDataset(data, "B", "test")]
    assert native.cases.groupby("case")["prediction_pixels"].sum().tolist() == pixels
    assert Image.open(write_overlays(run, native, 1)[0]).width == 6 * 91
    with pytest.raises(ProtocolError, match=r"two scoring protocols \(inference\)"):
        score_table([resized, native])


def test_inference_joins_any_protocol(run):
    scoring = Scoring(dice_smoothing=1)
    evaluation = evaluate(run, scoring=scoring, inference="native")
    assert evaluation.meta.protocol == Scoring(dice_smoothing=1, inference="native")
    assert evaluate(run, scoring=evaluation.meta.protocol, inference="resize").meta.protocol == scoring


def test_a_photograph_too_large_for_native_evaluation_is_named(run, monkeypatch):
    def bounded(*arguments, **options):
        predictor = load_model(*arguments, **options)
        for layer in predictor.network.modules():
            if isinstance(layer, TVConv2d):
                layer.kernel_cache_bytes = 100_000
        return predictor

    monkeypatch.setattr(predictions, "load_model", bounded)
    with pytest.raises(DataError, match=r"Btest0\.png: 96x96 pixels are too many for inference=native: .* 6x6"):
        evaluate(run, inference="native")
    assert evaluate(run).meta.protocol == Scoring()


def test_run_with_its_own_threshold_predicts_as_it_is_scored(draw_root, tmp_path):
    own = ["train.threads=1", "scoring.threshold=0.3", "scoring.largest_component=false", "train.epochs=4"]
    own += ["data.image_interpolation=bilinear"]
    root = open_root(draw_root(size=96))
    run = train(load_config("tiny", overrides=own, arguments={"holdout": "B"}), root, tmp_path / "runs")
    predictor = load_model(run.path)
    pixels = [predictor(sample.image).sum() for sample in FundusDataset(root, "B", "test")]
    scored = evaluate(run).cases.groupby("case")["prediction_pixels"].sum()
    assert scored.tolist() == pixels
    assert sum(pixels) > 0


def test_faults_are_counted_before_post_processing_hides_them(run):
    processed, bare = (
        evaluate(run, scoring=Scoring(threshold=0.5, largest_component=keep, fill_holes=keep)).cases
        for keep in (True, False)
    )
    pd.testing.assert_frame_equal(processed[[*FAULTS]], bare[[*FAULTS]])
    assert (processed[["components", "holes"]].max() > [1, 0]).any()  # the network of two epochs draws specks
    assert not processed["prediction_pixels"].equals(bare["prediction_pixels"])


def test_another_protocol_has_its_own_file(run):
    own, released = evaluate(run), evaluate(run, scoring=Scoring(dice_smoothing=1))
    assert own.path != released.path
    assert released.meta.protocol.dice_smoothing == 1


@pytest.fixture
def scored(run, monkeypatch):
    """A run whose four cases were predicted in batches of three, and its evaluation."""
    monkeypatch.setattr(predictions, "BATCH", 3)
    return run, evaluate(run)


@pytest.mark.parametrize(
    ("lines", "of_the_next", "kept"),
    [(7, 0, 3), (5, 12, 2), (3, 0, 1), (4, 3, 1), (2, 0, 0), (0, 5, 0)],
    ids=["between cases", "in a row", "one case", "between its rows", "no whole case", "in the first line"],
)
def test_cut_evaluation_is_recovered_to_its_last_whole_case(scored, lines, of_the_next, kept):
    run, first = scored
    written = first.path.read_bytes()
    rows = written.splitlines(keepends=True)
    first.path.write_bytes(b"".join(rows[:lines]) + rows[lines][:of_the_next])
    with pytest.raises(RunError, match=r"best\.csv: cut off or changed since it was written; evaluate the run again"):
        read_evaluation(first.path)
    progress = Lines()
    pd.testing.assert_frame_equal(evaluate(run, progress=progress).cases, first.cases)
    assert first.path.read_bytes() == written
    assert progress.done[f"scoring {run.path}"] == 4 - kept
    if kept:
        assert progress.lines == [f"{first.path}: cut off; {kept} whole cases kept, scoring the other {4 - kept}"]
    else:
        assert progress.lines == [f"{first.path}: not what was written; scoring every case again"]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_edited_evaluation_is_refused_and_none_of_its_rows_kept(scored, cut):
    run, first = scored
    rows = first.path.read_text().splitlines(keepends=True)
    rows[1] = rows[1].replace(",disc,", ",disc ,")
    first.path.write_text("".join(rows[:-1] if cut else rows))
    with pytest.raises(RunError, match="cut off or changed"):
        read_evaluation(first.path)
    progress = Lines()
    pd.testing.assert_frame_equal(evaluate(run, progress=progress).cases, first.cases)
    assert progress.lines[-1] == f"{first.path}: not what was written; scoring every case again"


def test_checkpoint_of_another_network_is_refused(run, draw_root, tmp_path):
    settings = load_config("tiny", overrides=["train.threads=1"], arguments={"holdout": "B", "model.op": "conv"})
    other = train(settings, open_root(run.read_config()["provenance"]["data_root"]), tmp_path / "other")
    run.checkpoint("best").write_bytes(other.checkpoint("best").read_bytes())
    with pytest.raises(CheckpointError, match="not of the network"):
        evaluate(run)


def test_second_evaluation_reads_the_first(run, monkeypatch):
    first = evaluate(run)
    monkeypatch.setattr(predictions, "load_model", None)
    pd.testing.assert_frame_equal(evaluate(run).cases, first.cases)


def test_half_written_evaluation_is_made_again(run):
    first = evaluate(run)
    first.path.with_suffix(".json").unlink()
    first.path.write_text("protocol,domain\n")
    progress = Lines()
    pd.testing.assert_frame_equal(evaluate(run, progress=progress).cases, first.cases)
    assert progress.lines == [f"{first.path}: of an older format, or without its JSON; scoring every case again"]


def test_scores_of_another_checkpoint_are_made_again(run):
    first, progress = evaluate(run), Lines()
    assert evaluate(run, progress=progress).cases.equals(first.cases)
    assert progress.lines == []
    path = first.path.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "checkpoint_sha256": "0"}))
    pd.testing.assert_frame_equal(evaluate(run, progress=progress).cases, first.cases)
    assert progress.lines == [f"{first.path}: of another checkpoint or other data; scoring every case again"]


def test_last_is_labelled_last(run):
    evaluation = evaluate(run, checkpoint="last")
    assert evaluation.meta.selection == "last"
    assert evaluation.path != evaluate(run).path


def test_another_data_set_is_refused(run, draw_root):
    other = draw_root("other", size=80)
    with pytest.raises(DataError, match="B/test is not what"):
        evaluate(run, other)


def test_an_error_says_how_another_data_set_differs(run, draw_root, tmp_path):
    rois = "Domain2/test/ROIs"
    other = draw_root("other", size=96)
    photograph, mask = (other / rois / kind / "Btest0.png" for kind in ("image", "mask"))
    Image.open(photograph).transpose(Image.Transpose.ROTATE_180).save(photograph)
    with pytest.raises(DataError, match=r"compared with \S+ it has 1 of 4 photographs with other content; give"):
        evaluate(run, other)
    for path in (photograph, mask):
        path.rename(path.with_name("Btest9.png"))
    with pytest.raises(DataError, match=r"it has 1 further case, 1 missing case; give"):
        evaluate(run, other)
    coded = "coding: labels\ndomains:\n"
    for domain, folder in (("A", "Domain1"), ("B", "Domain2")):
        coded += f"  {domain}:\n"
        for split in ("train", "test"):
            files = f"data/{folder}/{split}/ROIs"
            coded += f'    {split}: {{images: "{files}/image/*.png", masks: "{files}/mask/{{name}}.png"}}\n'
    (tmp_path / "coded.yaml").write_text(coded)
    with pytest.raises(DataError, match=r"masks are the same, but the coding of the masks.* differs; give"):
        evaluate(run, tmp_path / "coded.yaml")
    mask = tmp_path / "data" / rois / "mask" / "Btest0.png"
    Image.open(mask).transpose(Image.Transpose.ROTATE_180).save(mask)
    with pytest.raises(DataError, match=r"which of them cannot be told, since \S+ has changed too"):
        evaluate(run)


def test_untrained_run_is_refused(run):
    (run.path / "TRAINED").unlink()
    with pytest.raises(RunError, match="not trained to its end"):
        evaluate(run)


def test_overlays_run_from_the_worst_case_to_the_best(run):
    evaluation = evaluate(run)
    paths = write_overlays(run, evaluation, 2)
    assert [path.parent for path in paths] == [run.overlays(Scoring().digest(), "best")] * 2
    assert [path.name.split("-")[0] for path in paths] == ["001", "004"]
    assert [path.suffix for path in paths] == [".jpg", ".jpg"]
    assert Image.open(paths[0]).width == 480  # enlarged, or no text would fit
    (lossless,) = write_overlays(run, evaluation, 1, form="png")
    assert [path.name for path in lossless.parent.iterdir()] == [lossless.name]
    assert lossless.suffix == ".png"
    assert len(write_overlays(run, evaluation, 99)) == 4
    assert len(write_overlays(run, evaluation, 2)) == len(list(paths[0].parent.iterdir())) == 2


def test_no_overlays_where_every_true_mask_is_empty(run):
    evaluation = evaluate(run)
    undefined = replace(evaluation, cases=evaluation.cases.assign(dsc=float("nan")))
    told = Lines()
    assert write_overlays(run, undefined, 2, progress=told) == []
    assert told.lines == [f"{run.path}: no overlays, since no case of B has a Dice: every true mask is empty"]


def test_evaluation_of_another_format_is_refused_by_name_and_made_again(run):
    evaluation = evaluate(run)
    path = evaluation.path.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(RunError, match=r"best\.csv: format 1, this version reads 3 and 4; evaluate the run again"):
        read_evaluation(evaluation.path)
    progress = Lines()
    pd.testing.assert_frame_equal(evaluate(run, progress=progress).cases, evaluation.cases)
    assert progress.lines == [f"{evaluation.path}: of an older format, or without its JSON; scoring every case again"]


class TestForgedRecords:
    """Records that no evaluation writes are refused, although their digest is that of the file; the run is rescored."""

    FORGERIES: ClassVar = [
        (lambda cases: cases.assign(dsc=7.0), "a dsc of 7.0 in case Btest0"),
        (lambda cases: cases.assign(dsc=np.inf), "a dsc of inf in case Btest0"),
        (lambda cases: cases.assign(nsd=-0.1), "a nsd of -0.1"),
        (lambda cases: cases.assign(hd=-np.inf), "a hd of -inf"),
        (lambda cases: cases.assign(hd95=1e6), "a hd95 of 1000000.0"),
        (lambda cases: cases.assign(truth_pixels=-1), "a truth_pixels of -1"),
        (lambda cases: cases.assign(holes=np.nan), "a holes of nan"),
        (lambda cases: cases[:0], "0 rows, not one of disc and cup for each case"),
        (lambda cases: cases[:-1], "7 rows"),
        (lambda cases: pd.concat([cases, cases]), "16 rows"),
        (lambda cases: cases.assign(structure="disc"), "8 rows"),
        (lambda cases: cases.assign(dsc="many"), "not a whole evaluation"),
        (lambda cases: cases.drop(columns="case"), "not a whole evaluation"),
    ]
    JSONS = (
        "[" * 100_000,
        '{"format": 3, "checkpoint": "best", "run": {"operator": 1}}',
        "[]",
        '{"format": 4}',
    )

    def test_rows(self, run):
        evaluation = evaluate(run)
        for forge, reason in self.FORGERIES:
            self.write(evaluation.path, forge(evaluation.cases))
            with pytest.raises(RunError, match=rf"^{evaluation.path}: {reason}.*; evaluate the run again$"):
                read_evaluation(evaluation.path)

    @pytest.mark.parametrize("forge", [FORGERIES[0][0], lambda cases: cases[:-2]], ids=["DSC 7", "fewer cases"])
    def test_are_scored_again(self, run, forge):
        evaluation = evaluate(run)
        self.write(evaluation.path, forge(evaluation.cases))
        pd.testing.assert_frame_equal(evaluate(run).cases, evaluation.cases)

    def test_the_json_beside_them(self, run):
        evaluation = evaluate(run)
        for content in self.JSONS:
            evaluation.path.with_suffix(".json").write_text(content)
            with pytest.raises(RunError, match="not a whole evaluation; evaluate the run again"):
                read_evaluation(evaluation.path)

    def write(self, path, cases):
        cases.to_csv(path, index=False)
        meta = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**meta, "cases_sha256": file_digest(path)}))
