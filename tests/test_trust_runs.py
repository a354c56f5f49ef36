"""Trust in runs: what is calibrated on what, what is measured on the unseen domain, and the command that prints it."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial
from itertools import product

import numpy as np
import pytest
from predictions import rows_of
from small_runs import Lines, settings

from fundus_seg import load_model
from fundus_seg.data.dataset import read_sample
from fundus_seg.data.files import Case
from fundus_seg.data.layout import open_root
from fundus_seg.errors import RunError
from fundus_seg.evaluation import trust_cases
from fundus_seg.evaluation.ensembles import ensembles_of
from fundus_seg.evaluation.trust import calibrate_trust, calibrate_trust_of_runs, measure_trust, measure_trust_of_runs
from fundus_seg.inference.case_columns import TRUST
from fundus_seg.inference.ensemble import Ensemble
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.members import find_members
from fundus_seg.inference.trust_file import Interval, read_trust, trust_of
from fundus_seg.inference.watched import Watched, encoder_features
from fundus_seg.metrics import dice
from fundus_seg.protocol import source_half
from fundus_seg.reporting.trust import trust_reports
from fundus_seg.runs.folder import RunFolder
from fundus_seg.training import train
from fundus_seg.trust.conformal import conformal_margin
from fundus_seg.trust.signals import names_of


def seen(read, original, cases, *rest, **more):
    """What the original gives; `read` gets the cases, of which there is one or several."""
    read += [cases] if isinstance(cases, Case) else cases
    return original(cases, *rest, **more)


QUICK = ("train.epochs=1", "train.steps_per_epoch=1", "scoring.threshold=0.4")


@pytest.fixture
def root(draw_root):
    return open_root(draw_root("trained", train=2, test=8))


@pytest.fixture
def run(root, tmp_path):
    return train(settings(*QUICK, holdout="B"), root, tmp_path / "runs")


class TestWatched:
    def test_masks_are_the_same_to_the_bit_and_signals_are_those_of_both_views(self, run, root):
        predictor, case = load_model(run.path), read_sample(root.cases("B", "test")[0])
        watched, frame = Watched(predictor), case.image.shape[:2]
        watch = watched.logits_of_batch([watched.prepare(case.image)], frame)[0]
        np.testing.assert_array_equal(watched.framed(watch, frame), predictor.raw_masks(case.image))
        np.testing.assert_array_equal(watched.probabilities(case.image), predictor.probabilities(case.image))
        pooled = encoder_features(predictor, predictor.prepare(case.image)[None])[0]
        np.testing.assert_allclose(watch.features[0], pooled, atol=1e-5)
        calibrate_trust(run)
        trust = trust_of(find_members([run.path]))
        signals = watched.signals(watch, trust.reference, trust.checkpoints)
        assert set(signals.values) == {*names_of("disc"), *names_of("cup")}
        views = Ensemble([predictor], views="flip")
        logits = views.logits_of_batch([views.prepare(case.image)], frame)[0][0]
        both = [predictor.probability(each, (256, 256), 0) for each in logits]
        disc, other = predictor.clean(np.stack([both[0], both[1][:, ::-1]]) > 0.4)
        assert signals.values["disagreement_disc"] == pytest.approx(1 - dice(disc, other))
        assert len(signals.ratios) == 2


class TestCalibration:
    def test_it_reads_the_training_domains_alone(self, run, root, monkeypatch):
        read = []
        for name in ("read_sample", "load_resized"):
            original = getattr(trust_cases, name)
            monkeypatch.setattr(trust_cases, name, partial(seen, read, original))
        summary = calibrate_trust(run)
        assert {(case.domain, case.split) for case in read} == set(product("ACD", ("train", "test")))
        kept = {domain: sum(source_half(f"{domain}test{n}") == "calibrate" for n in range(8)) for domain in "ACD"}
        trust = read_trust(run.path, [find_members([run.path])[0].digest])
        assert trust.domains == summary.domains == kept
        assert set(trust.data) == {f"{domain}/{split}" for domain in "ACD" for split in ("train", "test")}
        assert trust.copies == trust_cases.COPIES
        interval = trust.interval
        assert interval.margin == conformal_margin(interval.scores, 0.1)
        assert {len(values) for values in interval.signals.values()} == {len(interval.scores)}
        before = (run.path / "trust.json").read_bytes()
        calibrate_trust(run)
        assert (run.path / "trust.json").read_bytes() == before

    def test_too_few_cases_give_no_interval_and_say_so(self, run):
        told = Lines()
        summary = calibrate_trust(run, alpha=0.01, progress=told)
        assert math.isnan(summary.margin)
        assert summary.lacking == f"{summary.interval_cases} cases, and alpha 0.01 needs 99"
        assert any(f"no interval: {summary.lacking}" in line for line in told.lines)
        measured = measure_trust(run)
        assert measured.cases[["vcdr_low", "vcdr_high"]].isna().all(axis=None)
        report, _ = trust_reports([measured])
        assert report.layout.rows[0][3] == "none"
        assert "needs 99" in str(report)

    def test_it_is_that_of_one_checkpoint(self, run, tmp_path):
        calibrate_trust(run)
        (member,) = find_members([run.path])
        assert trust_of([member]) is not None
        (alone,) = find_members([shutil.copy(run.checkpoint("best"), tmp_path / "alone.ckpt")])
        assert trust_of([alone]) is None
        content = json.loads((run.path / "trust.json").read_text())
        (run.path / "trust.json").write_text(json.dumps({**content, "checkpoints": ["0" * 64]}))
        assert trust_of([member]) is None
        for damaged in ("", "[]", json.dumps({**content, "interval": 1}), json.dumps({**content, "more": 1})):
            (run.path / "trust.json").write_text(damaged)
            with pytest.raises(RunError, match=r"trust\.json: cannot be read; `fundus-seg calibrate` the run again"):
                trust_of([member])

    def test_an_interval_is_that_of_all_ratios_and_within_its_bounds(self):
        interval = Interval(alpha=0.1, margin=0.1, scores=[], signals={})
        assert interval.around([0.5, 0.4, 0.45], 0.1) == pytest.approx((0.3, 0.6))
        assert interval.around([0.05, 0.95], 0.1) == (0, 1)
        assert interval.around([0.5]) == pytest.approx((0.4, 0.6))
        assert interval.around([0.5], math.inf) == (0, 1)
        assert all(map(math.isnan, interval.around([math.nan])))
        assert all(map(math.isnan, Interval(alpha=0.1, margin=None, scores=[], signals={}).around([0.5])))

    def test_native_inference_is_left_out(self, root, tmp_path):
        run = train(settings(*QUICK, "scoring.inference=native", holdout="B"), root, tmp_path / "runs")
        told = Lines()
        assert calibrate_trust_of_runs([run.path], progress=told) == []
        assert any("in trust (its network sees photographs at their own size)" in line for line in told.lines)
        assert not (run.path / "trust.json").exists()


class TestMeasured:
    def test_the_unseen_domain_is_measured(self, run, command, tmp_path):
        told = Lines()
        (measured,) = measure_trust_of_runs([tmp_path / "runs"], progress=told)
        assert any("trust is not calibrated yet" in line for line in told.lines)
        assert measured.cases["domain"].tolist() == ["B"] * 8
        assert measured.cases["predicted_dsc_disc"].between(0, 1).all()
        table, curve = (report.frame for report in trust_reports([measured]))
        assert table["holdout"].tolist() == ["B"]
        assert {"coverage", "coverage_low", "nominal", "rho_disc", "aurc", "aurc_oracle", "caught"} <= set(table)
        assert curve["kept"].tolist() == [(n + 1) / 8 for n in range(8)]
        assert curve["risk"].iloc[-1] == pytest.approx(curve["chance"].iloc[0])
        assert (curve["oracle"] <= curve["risk"] + 1e-12).all()
        assert "Loss of what is kept, unseen domains" in command("evaluate", "runs", "--trust").out
        assert "Trust on unseen domains" not in command("evaluate", "--trust", "textwrap:dedent", "runs").out

    def test_an_ensemble_has_a_calibration_of_its_own(self, run, root, tmp_path):
        other = train(settings(*QUICK, holdout="B", seed=1), root, tmp_path / "runs")
        (ensemble,) = ensembles_of([run, other])
        assert trust_of(find_members([run.path, other.path])) is None
        (measured,) = measure_trust_of_runs([tmp_path / "runs"], ensemble=True)
        assert measured.calibration.networks == 2
        trust = trust_of(find_members([other.path, run.path]))
        assert trust == read_trust(ensemble.path, trust.checkpoints)
        assert trust_of(find_members([run.path])) is None
        assert {len(each.means) for each in trust.reference.features.values()} == {3}
        report, _ = trust_reports([measured])
        assert report.layout.rows[0][2] == "mean of 2"

    def test_a_run_of_every_domain_is_left_out(self, root, tmp_path):
        run = train(settings(*QUICK, holdout="none"), root, tmp_path / "runs")
        told = Lines()
        assert measure_trust(RunFolder(run.path), progress=told) is None
        assert any("in trust on the unseen domain" in line for line in told.lines)
        assert calibrate_trust(run).domains.keys() == set("ABCD")


class TestPredict:
    def test_columns_of_trust_stand_beside_the_same_masks(self, run, photographs, tmp_path):
        folder = [photographs / "image"]
        plain = rows_of(predict_folder(run.path, folder, tmp_path / "plain"))
        calibrate_trust(run)
        table = rows_of(predict_folder(run.path, folder, tmp_path / "out"))
        for before, row in zip(plain, table, strict=True):
            assert {name: text for name, text in row.items() if name not in TRUST} == before
            if row["vertical_cdr"]:
                assert 0 <= float(row["vcdr_low"]) <= float(row["vertical_cdr"]) <= float(row["vcdr_high"]) <= 1
            assert 0 <= float(row["predicted_dsc_cup"]) <= 1
        masks = [
            {path.name: path.read_bytes() for path in (tmp_path / out / "masks").iterdir()} for out in ("plain", "out")
        ]
        assert masks[0] == masks[1]
        trust = trust_of(find_members([run.path]))
        assert json.loads((tmp_path / "out/predictions.json").read_text())["made_by"]["trust"] == trust.digest
        with pytest.raises(RunError, match=r"holds other predictions \(trust none there, "):
            predict_folder(run.path, folder, tmp_path / "plain")

    def test_a_line_declines(self, run, photographs, command, tmp_path):
        told = command("predict", run.path, photographs / "image", "--out", "out", "--decline-below", "0.5", code=2)
        assert "--decline-below needs a calibrated trust: `fundus-seg calibrate` the run" in told.err
        calibrate_trust(run)
        scores = [
            (float(row["predicted_dsc_disc"]) + float(row["predicted_dsc_cup"])) / 2
            for row in rows_of(predict_folder(run.path, [photographs / "image"], tmp_path / "all"))
        ]
        line = sorted(scores)[2]
        arguments = (
            "predict",
            run.path,
            photographs / "image",
            "--out",
            "out",
            "--roi",
            "full",
            "--decline-below",
            line,
        )
        told = command(*arguments)
        rows = rows_of(tmp_path / "out/cases.csv")
        declined = [row["status"] == "declined" and "below --decline-below" in row["reason"] for row in rows]
        assert declined == [score < line for score in scores]
        assert f"{sum(declined)} of 4 photographs: the predicted DSC is below --decline-below" in told.err
        command(*arguments, "--strict", code=3)

    def test_mirrored_views_have_no_trust_and_say_so(self, run, photographs, tmp_path):
        calibrate_trust(run)
        told = Lines()
        table = predict_folder(run.path, [photographs / "image"], tmp_path / "out", views="flip", progress=told)
        assert not {*TRUST} & {*rows_of(table)[0]}
        assert any("trust is calibrated without --views flip" in line for line in told.lines)
