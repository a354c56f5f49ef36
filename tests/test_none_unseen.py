"""`--holdout none`: a network of every domain, its in-domain scores, its card, and the tables that refuse it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_runs import Lines, settings

from fundus_seg.config import load_config, resolve_sources
from fundus_seg.data import open_root
from fundus_seg.errors import DataError, ProtocolError, RunError, UsageError
from fundus_seg.evaluation.runs import evaluate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.experiments import plan
from fundus_seg.inference.predict import load_model
from fundus_seg.protocol import source_half
from fundus_seg.reporting import evaluation_reports, in_domain_table, score_table, scored_runs, write_card
from fundus_seg.training import train

QUICK = ("train.epochs=1", "train.steps_per_epoch=1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of one recipe on the phantom, of holdouts none and A, and the folder above them."""
    out = tmp_path_factory.mktemp("runs")
    root = open_root("phantom")
    return [train(settings(*QUICK, holdout=holdout), root, out) for holdout in ("none", "A")], out


def test_it_trains_on_every_domain_and_selects_on_their_halves(runs):
    (run, other), out = runs
    assert run.path.relative_to(out).parts[:3] == ("phantom", "tiny", "none")
    assert run.path.parent.name == other.path.parent.name, "the recipe is that of the runs that leave one out"
    content = run.read_config()
    assert content["data"]["sources"] == ["A", "B", "C", "D"]
    assert set(content["inputs"]) == {f"{domain}/{split}" for domain in "ABCD" for split in ("train", "test")}
    assert content["provenance"]["photographs"].keys() == set("ABCD")
    assert load_model(run.path).framing is not None
    assert load_model(run.path).phantom is True


def test_the_recipe_has_the_name_of_the_experiment_it_belongs_to():
    def recipe(holdout, *overrides):
        config = load_config("tiny", overrides=overrides, arguments={"holdout": holdout})
        return resolve_sources(config, "ABC", where=None).recipe(all_domains="ABC")

    assert recipe("none", "optim.lr=0.1") == recipe("A", "optim.lr=0.1")
    assert recipe("none", "data.sources=[A, B]") == recipe("A", "data.sources=[B]")
    assert recipe("none") == recipe("A") == ""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.selection=oracle"], "chooses on the unseen domain, and there is none"),
        (["data.sources=[]"], "name one or more"),
        (["data.sources=[X]"], "unknown domain 'X'"),
    ],
)
def test_what_needs_an_unseen_domain_is_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        resolve_sources(settings(*overrides, holdout="none"), "ABCD", where=None)


def test_a_probe_has_nothing_to_probe(draw_root, tmp_path):
    with pytest.raises(UsageError, match="--probe-holdout with holdout none"):
        train(settings(holdout="none"), open_root(draw_root()), tmp_path / "runs", probe=True)
    assert not (tmp_path / "runs").exists()


def test_one_domain_is_enough(command, draw_root, tmp_path):
    data = draw_root(domains="A", test=6)
    quick = ["--config", "tiny", "--data", data, *(word for each in QUICK for word in ("--set", each))]
    folder = command("train", "--holdout", "none", *quick).out.strip()
    assert "In-domain scores" in command("evaluate", folder).out
    assert "training needs two" in command("train", "--holdout", "A", *quick, code=1).err


def test_it_is_scored_on_the_halves_that_chose_nothing(runs):
    (run, _), _ = runs
    found = evaluate_runs([run.path])
    assert not found.evaluations
    (scores,) = found.seen
    assert scores.meta.scored == "in-domain"
    assert set(scores.cases["domain"]) == set("ABCD")
    assert {source_half(case) for case in scores.cases["case"]} == {"calibrate"}
    (report,) = evaluation_reports(found.evaluations, ["dsc"], seen=found.seen)
    assert "PHANTOM" in report.layout.title and "no domain is unseen" in report.layout.title
    assert [row[1:3] for row in report.layout.rows[:5]] == [("disc", each) for each in (*"ABCD", "mean")]
    disc = scores.cases[(scores.cases["structure"] == "disc") & (scores.cases["domain"] == "B")]
    frame = report.frame.set_index(["structure", "domain"])
    assert np.isclose(frame.loc[("disc", "B"), "mean"], 100 * disc["dsc"].mean())
    with pytest.raises(RunError, match="trained on every domain: no domain is unseen by its network"):
        evaluate(run)


def test_tables_of_holdouts_refuse_it_by_name(runs):
    (run, other), out = runs
    own, beside = evaluate(run, scored="in-domain"), evaluate(other)
    with pytest.raises(ProtocolError, match=r"two kinds of cases in one table: .*none/tvconv"):
        score_table([beside, own])
    with pytest.raises(ProtocolError, match=r"none/tvconv.* of in-domain cases, in a table of holdout cases"):
        score_table([own])
    with pytest.raises(ProtocolError, match="of holdout cases, in a table of in-domain cases"):
        in_domain_table([beside])
    progress = Lines()
    found = evaluate_runs([out], overlays=1, progress=progress)
    assert [each.meta.run.holdout for each in found.evaluations] == ["A"]
    assert [each.meta.run.holdout for each in found.seen] == ["none"]
    told = [line for line in progress.lines if line.startswith("left out: 1 run, trained on every domain, of the ")]
    assert len(told) == 2 and all(str(run.path) in line for line in told)
    progress = Lines()
    assert [each.evaluation.meta.run.holdout for each in scored_runs([out], progress=progress)] == ["A"]
    assert str(run.path) in progress.lines[0]
    with pytest.raises(RunError, match=r"none/tvconv\S+: trained on every domain"):
        scored_runs([run.path])
    with pytest.raises(UsageError, match="--holdouts none"):
        plan(open_root("phantom"), out, ops=["conv"], seeds=[0], holdouts=["A", "none"], config="tiny")


def test_its_card_quotes_the_runs_of_its_recipe(runs):
    (run, other), _ = runs
    done = other.path / "evaluations"
    if done.exists():
        for path in done.iterdir():
            path.unlink()
    card = write_card(run).read_text()
    assert "not a medical device" in card and "Synthetic photographs (the phantom)" in card
    assert "Nor are there runs of the same recipe" in card
    inputs = run.read_config()["inputs"]
    assert all(digest in card for digest in inputs.values())
    framing = load_model(run.path).framing
    assert f"{framing.low} to {framing.high} of the side" in card
    scores = evaluate(other)
    card = write_card(run).read_text()
    dsc = score_table([scores], ["dsc", "hd95"]).layout.rows[0][-1]
    assert "No run of the same recipe leaves out B, C, D." in card
    assert re.search(rf"\| DSC \[%\] \| disc \(OD\) \| A \| [^|]+ \| (\*\*)?{re.escape(dsc)}", card)
    whole = scores.path.read_bytes()
    scores.path.write_bytes(whole[:-10])
    assert f"damaged: the scores of 1 run, first {scores.path}." in write_card(run).read_text()
    scores.path.write_bytes(whole)
    assert write_card(other) is None
    content = run.read_config()
    run.write_config({**content, "inputs": {**inputs, "B/train": "0" * 16}})
    assert "Left out, since their photographs or masks are not the same: 1 run." in write_card(run).read_text()
    run.write_config(content)


def test_its_card_says_how_its_checkpoint_was_chosen(draw_root, tmp_path):
    run = train(settings(*QUICK, "train.selection=last", holdout="none"), open_root(draw_root()), tmp_path / "runs")
    card = write_card(run).read_text()
    assert "`best` is that of the last epoch" in card and "on the half `select`" not in card


@pytest.mark.parametrize("key", ["none", "None", "NONE"])
def test_no_domain_is_called_none(tmp_path, key):
    path = tmp_path / "domains.yaml"
    path.write_text(yaml.safe_dump({"domains": {"A": {"images": "a/*.png"}, key: {"images": "b/*.png"}}}))
    with pytest.raises(DataError, match=rf"domains\.yaml:\d+: '{key}' cannot name a domain: --holdout none trains"):
        open_root(path)


def test_masks_of_another_tool_are_of_a_domain_too(command, truth):
    refused = command("score", "--pred", truth, "--truth", truth, "--holdout", "none", code=2)
    assert "'none' cannot name a domain" in refused.err


def test_the_command_line(command, draw_root):
    data = draw_root(test=6)
    quick = ["--config", "tiny", "--data", data, *(word for each in QUICK for word in ("--set", each))]
    printed = command("train", "--holdout", "none", *quick)
    folder = printed.out.strip()
    assert f"card of the network: {folder}/card.md" in printed.err
    assert "not a medical device" in Path(folder, "card.md").read_text()
    shown = command("evaluate", "runs", "--all-selections", "--format", "markdown")
    assert "In-domain scores, no domain is unseen" in shown.out and "Unseen domains" not in shown.out
    assert "left out" not in shown.err
    assert f"{folder}: trained on every domain: it has in-domain scores alone" in shown.err
    assert "no domain is unseen by its network" in command("compare", folder, code=1).err
    assert "--holdouts none" in command("benchmark", "--holdouts", "none", *quick, code=2).err
    command("predict", folder, data / "Domain1/test/ROIs/image", "--out", "masks", "--roi", "full")
    assert "none: train on every domain" in command("config", folder, "--format", "csv").out
    command("profile", "--config", folder, "--repeats", 2, "--ops", "conv")
    command("train", "--holdout", "none", "--seed", 1, *quick)
    assert "tvconv, mean of 2" in command("evaluate", "runs", "--ensemble", "--format", "markdown").out
    refused = command("train", "--holdout", "None", *quick, code=2)
    assert "unknown domain 'None': did you mean 'none'?" in refused.err
