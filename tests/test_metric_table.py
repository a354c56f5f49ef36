"""A metric is one entry of one table; what is done with results imports no torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from fundus_seg.config import load_config
from fundus_seg.data import open_root
from fundus_seg.evaluation.metric_table import METRICS, Metric, distances
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.runs import evaluate_runs
from fundus_seg.reporting.plots import write_plots
from fundus_seg.reporting.published import metric_names
from fundus_seg.reporting.table import render
from fundus_seg.reporting.tables import score_table
from fundus_seg.training import train


@pytest.fixture
def run(draw_root, tmp_path):
    overrides = ["train.threads=1", "train.epochs=1"]
    return train(load_config("tiny", overrides=overrides, arguments={"holdout": "B"}), open_root(draw_root()), tmp_path)


def area_error(pair):
    return abs(float(pair.predicted.sum()) - float(pair.true.sum())) ** 0.5


NEW = Metric("Area error", "px of 800", higher_is_better=False, score=area_error, published_as=("error of area",))


def test_a_metric_is_added_in_one_place(run, tmp_path, monkeypatch):
    """Scored, tabled, plotted and found in published tables, by one entry."""
    monkeypatch.setitem(METRICS, "area_error", NEW)
    (evaluation,) = evaluate_runs([run.path]).evaluations
    pixels = evaluation.cases["prediction_pixels"] - evaluation.cases["truth_pixels"]
    assert evaluation.cases["area_error"].tolist() == pytest.approx((pixels.abs() ** 0.5).tolist())
    report = score_table([evaluation], ["dsc", "area_error"])
    assert set(report.frame["metric"]) == {"dsc", "area_error"}
    assert report.layout.rows[-1][0] == "Area error [px of 800]"
    assert {path.stem for path in write_plots([evaluation], tmp_path / "plots", ["area_error"])} >= {"boxes-area_error"}
    assert "area_error" in distances()
    assert metric_names()["error of area"] == "area_error"


def test_records_that_are_older_than_a_metric_lack_it(run, tmp_path, monkeypatch):
    """They are whole: nothing is scored anew, and their values of it are NaN, those of missed cases too."""
    (first,) = evaluate_runs([run.path]).evaluations
    written = first.path.read_bytes()
    monkeypatch.setitem(METRICS, "area_error", NEW)
    (again,) = evaluate_runs([run.path]).evaluations
    assert first.path.read_bytes() == written
    missed = again.cases.assign(**dict.fromkeys(["hd", "hd95"], np.nan))
    values = scored_values(type(again)(again.path, again.meta, missed))
    assert values["penalised"].all()
    assert values["hd"].eq(100).all()
    assert values["area_error"].isna().all()
    report = score_table([again], ["area_error"])
    assert report.frame["mean"].isna().all()
    assert report.layout.rows[0][3] == "missing"
    assert "area_error,px of 800,disc,B,tvconv" in render(report, "csv")
    assert write_plots([again], tmp_path / "plots", ["area_error"])


def test_the_columns_of_the_records_are_as_they_were(run):
    (evaluation,) = evaluate_runs([run.path]).evaluations
    names = ["protocol", "domain", "case", "structure", "height", "width", "spacing_y", "spacing_x"]
    names += ["prediction_pixels", "prediction_rows", "prediction_columns"]
    names += ["truth_pixels", "truth_rows", "truth_columns", "components", "holes", "outside_disc"]
    names += ["dsc", "jaccard", "nsd", "hd", "hd95", "hd95_max", "asd", "assd"]
    columns = evaluation.path.read_text("utf8").splitlines()[0].split(",")
    assert columns[: len(names)] == names  # a metric of a later version stands behind them


def test_finished_runs_are_evaluated_without_torch(run):
    """Reading, tables, comparison and plots, and deciding that there is nothing to score."""
    evaluate_runs([run.path])
    program = f"""
import sys
from pathlib import Path
from fundus_seg.evaluation import evaluate_runs, read_evaluation
from fundus_seg.reporting import operators_table, render, score_table, write_plots
(evaluation,) = evaluate_runs([Path({str(run.path)!r})]).evaluations
read_evaluation(evaluation.path)
other = type(evaluation)(evaluation.path, evaluation.meta.model_copy(update={{"selection": "last"}}), evaluation.cases)
print(render(score_table([evaluation]), "markdown"))
print(render(operators_table([evaluation, other]), "csv"))
loaded = {{"torch", "lightning", "segmentation_models_pytorch", "torchvision"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_many_runs_are_evaluated_by_one_call(run, tmp_path):
    found = evaluate_runs([tmp_path], checkpoints="all", in_domain=True, overlays=1)
    assert sorted(each.meta.selection for each in found.evaluations) == ["last", "source-validation"]
    assert [out for out, _ in found.pairs] == found.evaluations
    assert {within.meta.scored for _, within in found.pairs} == {"in-domain"}
    assert all(path.is_file() for path in found.overlays)
    assert len(found.overlays) == 2
    assert isinstance(found.evaluations[0].cases, pd.DataFrame)
