"""Calibration: hand values of its measures, the temperature of a run, and what `predict` does with it."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from predictions import Told, written_in
from small_runs import Lines, settings

from fundus_seg import load_model
from fundus_seg.data.layout import open_root
from fundus_seg.errors import RunError, UntrustedError
from fundus_seg.evaluation import calibrate as module
from fundus_seg.evaluation import predictions
from fundus_seg.evaluation.calibrate import calibrate, calibrate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.inference.calibration import calibration_of
from fundus_seg.inference.folder import predict_folder
from fundus_seg.protocol import source_half
from fundus_seg.reporting.calibration import calibration_reports, write_reliability
from fundus_seg.statistics.calibration import (
    LIMITS,
    brier_score,
    fit_temperature,
    measure,
    negative_log_likelihood,
    probabilities,
    reliability,
)
from fundus_seg.training import train


def logit(probability):
    return math.log(probability / (1 - probability))


class TestMeasures:
    def test_reliability_and_its_error(self):
        """Two bins: .2 and .4 below, of which one in four is true; .8 above, of which all are."""
        logits = np.array([[logit(0.2), logit(0.2), logit(0.4), logit(0.4)], [logit(0.8)] * 4])
        truth = np.array([[0, 0, 0, 1], [1, 1, 1, 1]], np.uint8)
        found = reliability(logits, truth, bins=2)
        assert found.counts.tolist() == [4, 4]
        np.testing.assert_allclose(found.probability, [0.3, 0.8])
        np.testing.assert_allclose(found.frequency, [0.25, 1])
        assert found.error == pytest.approx((0.05 + 0.2) / 2)

    def test_edges_belong_to_the_bin_above_and_one_to_the_last(self):
        found = reliability(np.array([[0.0, 800.0, -800.0]]), np.array([[1, 1, 0]]), bins=4)
        assert found.counts.tolist() == [1, 0, 1, 1]
        assert np.isnan(found.probability[1])
        assert found.error == pytest.approx(0.5 / 3)

    def test_brier_score_and_likelihood(self):
        logits, truth = np.array([[0.0, logit(0.9)], [logit(0.1), 0.0]]), np.array([[1, 1], [1, 0]])
        assert brier_score(logits, truth) == pytest.approx((0.25 + 0.01 + 0.81 + 0.25) / 4)
        expected = -(math.log(0.5) + math.log(0.9) + math.log(0.1) + math.log(0.5)) / 4
        assert negative_log_likelihood(logits, truth) == pytest.approx(expected)
        assert negative_log_likelihood(2 * logits, truth, temperature=2) == pytest.approx(expected)

    def test_sums_are_those_of_float64_and_no_logit_is_too_large(self):
        logits, truth = np.float32([[1e4, -1e4, 0.0]]), np.array([[1, 0, 1]])
        assert negative_log_likelihood(logits, truth) == pytest.approx(math.log(2) / 3)
        assert probabilities(logits).tolist() == [[1, 0, 0.5]]
        assert negative_log_likelihood(np.float32([[-1e4]]), np.array([[1]])) == 1e4

    @pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
    def test_a_known_temperature_is_found(self, temperature):
        rng = np.random.default_rng(0)
        true_logits = rng.normal(0, 3, (20, 50, 50))
        truth = rng.random(true_logits.shape) < probabilities(true_logits)
        given = (temperature * true_logits).astype(np.float32)
        assert fit_temperature(given, truth) == pytest.approx(temperature, rel=0.03)
        before, after = measure(given, truth), measure(given, truth, temperature)
        assert after.reliability.error < 0.01
        assert after.nll <= before.nll + 1e-12
        assert after.brier <= before.brier + 1e-12

    def test_logits_without_a_fault_go_to_the_lower_limit(self):
        logits = np.array([[3.0, -3.0]])
        assert fit_temperature(logits, logits > 0) == pytest.approx(LIMITS[0], rel=0.01)
        assert fit_temperature(logits, logits < 0) == pytest.approx(LIMITS[1], rel=0.01)


@pytest.fixture
def run(draw_root, tmp_path):
    return train(settings(holdout="B"), open_root(draw_root("trained", size=96, test=6)), tmp_path / "runs")


class TestRun:
    def test_it_is_fitted_on_the_calibrate_halves_of_the_sources_alone(self, run, monkeypatch):
        seen = []
        fit = module.fit_temperature
        monkeypatch.setattr(module, "fit_temperature", lambda *pixels: seen.append(pixels) or fit(*pixels))
        measured = calibrate(run)
        kept = {domain: sum(source_half(f"{domain}test{n}") == "calibrate" for n in range(6)) for domain in "ACD"}
        assert [logits.shape for logits, _ in seen] == [(sum(kept.values()), 64, 64)] * 2
        found = json.loads((run.path / "calibration.json").read_text())
        assert found["domains"] == kept
        assert set(found["data"]) == {"A/test", "C/test", "D/test"}
        assert [(each.structure, each.where) for each in measured] == [
            (structure, where) for structure in ("disc", "cup") for where in ("in-domain", "unseen")
        ]
        assert dict(measured[1].domains) == {"B": 6}
        assert {each.after.temperature for each in measured} == {found["disc"], found["cup"]}
        assert all(each.before.temperature == 1 for each in measured)
        inside = [each for each in measured if each.where == "in-domain"]
        assert all(each.after.nll <= each.before.nll for each in inside)
        before = (run.path / "calibration.json").read_bytes()
        calibrate(run)
        assert (run.path / "calibration.json").read_bytes() == before

    def test_predict_keeps_calibrated_probabilities_and_the_same_masks(self, run, photographs, tmp_path):
        folder, told = [photographs / "image"], Told()
        predict_folder(run.path, folder, tmp_path / "plain", probabilities=True, progress=told)
        assert "probabilities are not calibrated; `fundus-seg calibrate` fits temperatures" in told.text
        calibrate(run)
        predict_folder(run.path, folder, tmp_path / "out", probabilities=True)
        told = Told()
        predict_folder(run.path, folder, tmp_path / "out", probabilities=True, progress=told)
        assert "photographs are done already" in told.text, "the same command goes on"
        temperatures = calibration_of(run.checkpoint("best")).temperatures
        plain, found = (written_in(tmp_path / out) for out in ("plain", "out"))
        assert {name for name in plain if plain[name] != found[name]} >= {"probabilities/disc/Atest0.png"}
        assert all(plain[name] == found[name] for name in plain if name.startswith(("masks", "cases")))
        image = np.asarray(Image.open(photographs / "image/Atest0.png"))
        predictor = load_model(run.path)
        assert predictor.calibrated
        logits = predictor.logits_of_batch([predictor.prepare(image)], image.shape)[0]
        uncalibrated = predictor.probability(logits, image.shape[:2], 1)
        own = np.asarray(Image.open(tmp_path / "out/probabilities/cup/Atest0.png")) / 65535
        expected = probabilities(np.log(uncalibrated / (1 - uncalibrated.astype(np.float64))), temperatures[1])
        np.testing.assert_allclose(own, expected, atol=2e-5)
        record = json.loads((tmp_path / "out/predictions.json").read_text())
        assert record["made_by"]["temperatures"] == [list(temperatures)]
        (tmp_path / "out/masks/Atest0.png").unlink()
        predict_folder(run.path, folder, tmp_path / "out", probabilities=True)  # goes on
        assert (tmp_path / "out/masks/Atest0.png").is_file()
        with pytest.raises(RunError, match=r"holds other predictions \(temperatures none there, "):
            predict_folder(run.path, folder, tmp_path / "plain", probabilities=True)
        predict_folder(run.path, folder, tmp_path / "plain")  # keeps none, and leaves what is there
        assert json.loads((tmp_path / "plain/predictions.json").read_text())["made_by"]["temperatures"] == []

    def test_masks_alone_are_the_same_with_and_without_it(self, run, photographs, tmp_path):
        folder, out = [photographs / "image"], tmp_path / "out"
        predict_folder(run.path, folder, out)
        calibrate(run)
        told = Told()
        predict_folder(run.path, folder, out, progress=told)
        assert "4 of 4 photographs are done already" in told.text
        assert "temperatures" not in json.loads((out / "predictions.json").read_text())["made_by"]
        predict_folder(run.path, folder, out, probabilities=True)
        predict_folder(run.path, folder, out)
        record = json.loads((out / "predictions.json").read_text())
        assert record["made_by"]["temperatures"] == [list(calibration_of(run.checkpoint("best")).temperatures)]
        assert len([*(out / "probabilities/cup").iterdir()]) == 4

    def test_it_is_that_of_one_checkpoint(self, run, tmp_path):
        calibrate(run)
        assert calibration_of(run.checkpoint("best")) is not None
        assert load_model(run.checkpoint("best")).calibrated
        copy = shutil.copy(run.checkpoint("best"), tmp_path / "alone.ckpt")
        assert not load_model(copy).calibrated
        content = json.loads((run.path / "calibration.json").read_text())
        (run.path / "calibration.json").write_text(json.dumps({**content, "checkpoint_sha256": "0" * 64}))
        assert not load_model(run.path).calibrated
        for damaged in ("", "[]", json.dumps({**content, "disc": 0}), json.dumps({**content, "cup": "1"}), "NaN"):
            (run.path / "calibration.json").write_text(damaged)
            with pytest.raises(RunError, match=r"calibration\.json: cannot be read; `fundus-seg calibrate` the run"):
                load_model(run.path)
        evaluate(run)  # masks do not depend on temperatures
        calibrate(run)
        assert load_model(run.path).calibrated

    def test_a_temperature_at_a_limit_is_warned_of(self, run, monkeypatch):
        monkeypatch.setattr(module, "fit_temperature", lambda *_: LIMITS[1])
        told = Lines()
        calibrate(run, progress=told)
        assert f"warning: {run.path}: the temperature of the cup lies at a limit, 20" in told.lines

    def test_the_command_prints_a_table_and_draws_diagrams(self, run, command, tmp_path):
        told = command("calibrate", "runs", "--plots", "plots")
        assert "Calibration, 1 run per row" in told.out
        assert "masks do not change" in told.out
        assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
            "reliability-tvconv.png",
            "reliability-tvconv.svg",
        ]
        command("calibrate", "runs", "--format", "csv")
        shown = command("calibrate", "runs", "--format", "csv").out
        (tmp_path / "table.csv").write_text(shown)
        table = pd.read_csv(tmp_path / "table.csv", comment="#", keep_default_na=False)
        assert table["where"].tolist() == ["in-domain", "unseen"] * 2
        assert {"temperature", "ece_before", "ece_after", "brier_before", "nll_after", "holdout", "seed"} <= set(table)

    def test_a_run_whose_operator_is_not_loaded_is_left_out(self, run, tmp_path, monkeypatch):
        other = shutil.copytree(run.path, tmp_path / "runs/other")
        original = predictions.predictor_of

        def untrusting(of, *arguments):
            if of.path == other:
                raise UntrustedError("code of your own", "mine:block")
            return original(of, *arguments)

        monkeypatch.setattr(predictions, "predictor_of", untrusting)
        told = Lines()
        assert {each.seed for each in calibrate_runs([tmp_path / "runs"], progress=told)} == {0}
        assert f"left out: 1 run, of an operator that is code of your own: {other}; --trust mine:block" in told.lines
        with pytest.raises(UntrustedError):
            calibrate_runs([other])

    def test_reports_say_how_each_checkpoint_was_chosen(self, draw_root, tmp_path):
        """The oracle has chosen on the photographs that are called unseen; its diagrams are files of their own."""
        root, quick = open_root(draw_root("trained", size=96, test=6)), ("train.epochs=1", "train.steps_per_epoch=1")
        measured = []
        for selection in ("source-validation", "oracle"):
            run = train(settings(*quick, f"train.selection={selection}"), root, tmp_path / "runs")
            measured += calibrate(run)
        (report,) = calibration_reports(measured)
        assert "selection: oracle (chosen on the scored cases themselves), source-validation" in report.layout.title
        assert len({row[0] for row in report.layout.rows}) == 2
        assert len(set(write_reliability(measured, tmp_path / "plots"))) == 4
        (alone,) = calibration_reports(calibrate(run))
        assert any(note.startswith("recipe of all runs") for note in alone.layout.notes)

    def test_a_run_without_an_unseen_domain_is_calibrated_in_domain_alone(self, draw_root, tmp_path, command):
        root = open_root(draw_root("all", size=96, test=6))
        run = train(settings(holdout="none"), root, tmp_path / "runs-of-all")
        assert {each.where for each in calibrate(run)} == {"in-domain"}
        told = command("calibrate", run.path, "--plots", "plots")
        assert "in-domain" in told.out
        assert list((tmp_path / "plots").glob("reliability-*.png"))

    def test_an_untrained_run_is_refused(self, run):
        (run.path / "TRAINED").unlink()
        with pytest.raises(RunError, match="not trained to its end"):
            calibrate(run)
        assert not (run.path / "calibration.json").exists()
