"""Which run it is: recorded once, kept in its scores, and read from what earlier versions left."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import pandas as pd
import pytest
import yaml

from fundus_seg.builtins import OPERATORS
from fundus_seg.config import load_config
from fundus_seg.data import open_root
from fundus_seg.errors import ProtocolError, RunError
from fundus_seg.evaluation import predictions
from fundus_seg.evaluation.records import read_evaluation, read_meta
from fundus_seg.evaluation.runs import evaluate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.reporting.notes import captions
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import UNKNOWN, Column, RunIdentity, recorded_identity
from fundus_seg.runs.record import recorded_settings
from fundus_seg.training import train


def settings(*overrides, op="tvconv"):
    given = ["train.threads=1", "train.epochs=1", *overrides]
    return load_config("tiny", overrides=given, arguments={"holdout": "B", "model.op": op})


def column(operator, recipe="", preset="paper", precision="fp32", selection="last"):
    return Column(operator, recipe, preset, precision, selection)


class TestColumns:
    def test_built_in_operators_come_first_and_in_their_order(self):
        given = [column(operator) for operator in ("alien", *reversed(OPERATORS))]
        assert [each.operator for each in sorted(given)] == [*OPERATORS, "alien"]

    def test_then_recipe_preset_precision_and_selection(self):
        ordered = [
            column("conv"),
            column("conv", selection="oracle"),
            column("conv", precision="fp64"),
            column("conv", preset="strong"),
            column("conv", recipe="lr=0.1-1a2b3c4d"),
        ]
        assert sorted(reversed(ordered)) == ordered

    def test_a_caption_says_what_tells_the_columns_apart(self):
        recipe = "lr=0.1-1a2b3c4d"
        bf16, fp32 = column("tvconv", recipe, precision="bf16"), column("tvconv", recipe)
        assert captions([bf16]) == {bf16: "tvconv"}
        assert captions([fp32, bf16]) == {bf16: "tvconv (bf16)", fp32: "tvconv (fp32)"}
        tool = column("nn-unet", preset=UNKNOWN, precision=UNKNOWN, selection=UNKNOWN)
        assert captions([fp32, tool]) == {fp32: "tvconv [last]", tool: "nn-unet [unknown]"}
        assert captions([fp32, column("conv")]) == {column("conv"): "conv", fp32: f"tvconv-{recipe}"}


@pytest.fixture
def experiment(draw_root, tmp_path):
    """A file of three domains, and a run trained on it."""
    draw_root(domains="ABCD")
    folders = {"A": "Domain1", "B": "Domain2", "C": "Domain3"}
    path = tmp_path / "domains.yaml"
    write_domains(path, folders)
    return path, train(settings(), open_root(path), tmp_path / "runs")


def write_domains(path, folders):
    domains = {
        key: {
            split: {
                "images": f"data/{folder}/{split}/ROIs/image/*.png",
                "masks": f"data/{folder}/{split}/ROIs/mask/{{name}}.png",
            }
            for split in ("train", "test")
        }
        for key, folder in folders.items()
    }
    path.write_text(yaml.safe_dump({"coding": {"cup": 0, "rim": 128, "background": 255}, "domains": domains}))


def test_a_domain_added_later_neither_renames_nor_rescores_a_run(experiment, monkeypatch):
    path, run = experiment
    first = evaluate(run)
    assert run.read_config()["identity"] == asdict(first.meta.run)
    write_domains(path, {"A": "Domain1", "B": "Domain2", "C": "Domain3", "D": "Domain4"})
    monkeypatch.setattr(predictions, "load_model", None)  # whatever is scored anew fails
    again = evaluate(run)
    assert again.meta == first.meta
    assert "domains" not in again.meta.run.recipe
    pd.testing.assert_frame_equal(again.cases, first.cases)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose recipe differs from its preset, and its scores."""
    run = train(settings("optim.lr=0.0003"), open_root("phantom"), tmp_path_factory.mktemp("runs"))
    return run, evaluate(run)


def as_earlier_versions_left_it(run, folder, name):
    """A copy of the run without its identity, with records of format 3."""
    copy = RunFolder(folder / "phantom" / "tiny" / "B" / name / "seed-0")
    shutil.copytree(run.path, copy.path)
    content = copy.read_config()
    del content["identity"]
    copy.write_config(content)
    for path in copy.path.rglob("evaluations/*.json"):
        meta = json.loads(path.read_text("utf8"))
        operator = f"{meta['run']['operator']}-{meta['run'].pop('recipe')}"
        path.write_text(json.dumps({**meta, "format": 3, "run": {**meta["run"], "operator": operator}}))
    return copy


def test_runs_and_records_of_earlier_versions_are_read_and_not_scored_anew(trained, tmp_path, monkeypatch):
    run, evaluation = trained
    old = as_earlier_versions_left_it(run, tmp_path, run.path.parent.name)
    monkeypatch.setattr(predictions, "load_model", None)
    read = evaluate(old)
    assert read.meta == evaluation.meta
    assert (read.meta.run.operator, read.meta.run.recipe[:10]) == ("tvconv", "lr=0.0003-")
    assert evaluate_runs([tmp_path]).evaluations[0].meta == evaluation.meta


def test_a_run_whose_folder_was_renamed_has_the_identity_of_its_settings(trained, tmp_path):
    run, evaluation = trained
    old = as_earlier_versions_left_it(run, tmp_path, "mine")
    assert recorded_identity(old, recorded_settings(old), old.read_config()) == evaluation.meta.run


def test_a_run_in_the_folder_of_another_recipe_keeps_the_identity_of_its_settings(trained, tmp_path):
    run, evaluation = trained
    old = as_earlier_versions_left_it(run, tmp_path, "tvconv")
    assert recorded_identity(old, recorded_settings(old), old.read_config()) == evaluation.meta.run


@pytest.mark.parametrize("identity", ["foo", {"operator": "conv"}, {"seed": "first"}])
def test_a_damaged_identity_is_named(trained, tmp_path, identity):
    run, evaluation = trained
    copy = RunFolder(tmp_path / "seed-0")
    shutil.copytree(run.path, copy.path)
    recorded = {**asdict(evaluation.meta.run), **identity} if "seed" in identity else identity
    copy.write_config({**copy.read_config(), "identity": recorded})
    with pytest.raises(RunError, match=r"config\.yaml: its identity is damaged"):
        evaluate(copy)


def test_runs_of_different_domains_do_not_share_a_column(experiment):
    path, run = experiment
    write_domains(path, {"A": "Domain1", "B": "Domain2", "C": "Domain3", "D": "Domain4"})
    other = train(settings("train.epochs=2", "optim.lr=0.01"), open_root(path), run.path.parents[3])
    one, two = (evaluate(each) for each in (run, other))
    assert score_table([one, two]).layout.columns[2:] == (one.meta.run.name, two.meta.run.name)  # behind two floors
    as_if = two.meta.model_copy(update={"run": replace(one.meta.run, seed=1)})
    with pytest.raises(ProtocolError, match=r"two sets of domains \(tvconv-.*\) in one table: A, B, C in"):
        score_table([one, replace(two, meta=as_if)])


@pytest.mark.parametrize(
    ("recorded", "checkpoint", "operator", "recipe"),
    [
        ("tvconv", "best", "tvconv", ""),
        ("tvconv-lr=0.0003-47b65c81", "best", "tvconv", "lr=0.0003-47b65c81"),
        ("depthwise-wide", "last", "depthwise-wide", ""),
        ("depthwise-wide-lr=0.1-47b65c81", "last", "depthwise-wide", "lr=0.1-47b65c81"),
        ("depthwise-lr=0.1-47b65c81", "last", "depthwise", "lr=0.1-47b65c81"),
        ("my.module.conv_x-lr=0.1-47b65c81", "best", "my.module.conv_x", "lr=0.1-47b65c81"),
        ("nn-unet", None, "nn-unet", ""),
        ("conv-of-theirs", None, "conv-of-theirs", ""),
    ],
)
def test_operator_and_recipe_of_format_3_are_told_apart(trained, tmp_path, recorded, checkpoint, operator, recipe):
    _, evaluation = trained
    meta = json.loads(evaluation.path.with_suffix(".json").read_text("utf8"))
    run = {"preset": "tiny", "operator": recorded, "holdout": "B", "seed": 3}
    path = tmp_path / "scores.csv"
    path.with_suffix(".json").write_text(json.dumps({**meta, "format": 3, "checkpoint": checkpoint, "run": run}))
    assert read_meta(path).run == RunIdentity(operator, recipe, "tiny", "fp32", "B", 3)


@pytest.mark.parametrize("content", [[], {}, {"format": 3}, {"format": 3, "checkpoint": "best", "run": {}}])
def test_a_damaged_json_is_named(content, tmp_path):
    path = tmp_path / "scores.csv"
    path.with_suffix(".json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"scores\.csv: "):
        read_evaluation(path)
