from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fundus_seg import load_model
from fundus_seg.config import load_config
from fundus_seg.data import FundusDataset, open_root
from fundus_seg.errors import DataError, RunError
from fundus_seg.evaluation import evaluate as module
from fundus_seg.evaluation.cases import score_case
from fundus_seg.evaluation.evaluate import evaluate, write_overlays
from fundus_seg.protocol import Scoring
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
    prediction = np.stack([square(64, 8, 8, 40, 44), square(64, 20, 20, 10, 10)])
    disc, _ = score_case(prediction, truth, scoring=released)
    assert disc["dsc"] == (2 * 1600 + 1) / (1600 + 1760 + 1)
    assert disc["hd"] == disc["hd95"]
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
    expected = module.RunName(preset="tiny", operator=run.path.parent.name, holdout="B", seed=0)
    assert evaluation.meta.run == expected
    assert not evaluation.meta.phantom
    assert run.has("DONE")


def test_evaluation_equals_the_predictor_on_each_photograph(run):
    """The front door, photograph in and masks out, gives the very masks that evaluation scores."""
    content = run.read_config()
    dataset = FundusDataset(content["provenance"]["data_root"], "B", "test")
    predictor = load_model(run.path)
    rows = [
        row
        for sample in dataset
        for row in score_case(predictor(sample.image), sample.masks, scoring=Scoring(), case=sample.name)
    ]
    scored = evaluate(run).cases
    pd.testing.assert_frame_equal(pd.DataFrame(rows)[scored.columns[2:]], scored[scored.columns[2:]], check_dtype=False)


def test_second_evaluation_reads_the_first(run, monkeypatch):
    first = evaluate(run)
    monkeypatch.setattr(module, "load_model", None)
    pd.testing.assert_frame_equal(evaluate(run).cases, first.cases)


def test_half_written_evaluation_is_made_again(run):
    first = evaluate(run)
    first.path.with_suffix(".json").unlink()
    first.path.write_text("protocol,domain\n")
    pd.testing.assert_frame_equal(evaluate(run).cases, first.cases)


def test_last_is_labelled_last(run):
    evaluation = evaluate(run, checkpoint="last")
    assert evaluation.meta.selection == "last"
    assert evaluation.path != evaluate(run).path


def test_another_data_set_is_refused(run, draw_root):
    other = draw_root("other", size=80)
    with pytest.raises(DataError, match="B/test is not what"):
        evaluate(run, other)


def test_untrained_run_is_refused(run):
    run.unmark("TRAINED")
    with pytest.raises(RunError, match="not trained to its end"):
        evaluate(run)


def test_overlays_run_from_the_worst_case_to_the_best(run):
    evaluation = evaluate(run)
    paths = write_overlays(run, evaluation, 2)
    assert [path.parent for path in paths] == [run.overlays] * 2
    assert [path.name.split("-")[1] for path in paths] == ["001", "004"]
    assert Image.open(paths[0]).size == (96, 96)
    assert len(write_overlays(run, evaluation, 99)) == 4


def test_evaluation_of_another_format_is_refused_by_name(run):
    evaluation = evaluate(run)
    path = evaluation.path.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    with pytest.raises(RunError, match=r"best\.csv: format 0"):
        module.read_evaluation(evaluation.path)
