"""Settings that source validation chooses, and tests that are corrected for the number of settings tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_runs import evaluation_of, identity, settings

from fundus_seg.data.layout import open_root
from fundus_seg.errors import ProtocolError, RunError
from fundus_seg.evaluation.metric_table import distances, overlaps
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.reporting.best_of import search, search_table, validation_score
from fundus_seg.reporting.compare import operators_table
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.atomic import write_rows
from fundus_seg.runs.folder import RunFolder
from fundus_seg.statistics.intervals import bootstrap_interval
from fundus_seg.training import train

CASES = np.linspace(0.5, 0.7, 10)


@pytest.fixture
def ran(tmp_path):
    """A function that leaves a run with these validation Dice, one an epoch, and holdout Dice."""

    def leave(
        validation, dsc, *, operator="tvconv", recipe="", holdout="A", seed=0, selection="source-validation", **meta
    ):
        run = RunFolder(tmp_path / operator / (recipe or "plain") / holdout / f"seed-{seed}")
        rows = [{"epoch": n, "dice_disc": dice + 0.1, "dice_cup": dice - 0.1} for n, dice in enumerate(validation, 1)]
        write_rows(run.metrics, rows)
        rows = [
            {"structure": structure, "case": str(case), "truth_pixels": 10, **dict.fromkeys(overlaps(), value),
             **dict.fromkeys(distances(), 100 * (1 - value))}
            for case, value in enumerate(dsc)
            for structure in ("disc", "cup")
        ]  # fmt: skip
        which = identity(operator=operator, recipe=recipe, holdout=holdout, seed=seed)
        made = evaluation_of(rows, which, selection=selection, **{"data": {f"{holdout}/test": "d"}, **meta})
        return replace(made, path=run.evaluation("0", "best"))

    return leave


def test_the_validation_score_is_that_of_the_epoch_that_became_best(ran):
    assert validation_score(ran([0.5, 0.8, 0.7], CASES)) == pytest.approx(80)


def test_the_recipe_is_chosen_by_validation_though_another_scores_better_on_the_holdout(ran):
    """Validation 80 against 70; on the unseen domain 60 against 65, so a choice by it would pretend to gain 5."""
    tried = [ran([0.8], CASES, recipe="lr=1-x"), ran([0.7], CASES + 0.05, recipe="lr=2-x")]
    found = search(tried)
    report = search_table(tried, found)
    assert [each.meta.run.recipe for each in found.evaluations] == ["best-of-2"]
    assert found.evaluations[0].path == tried[0].path
    (row,) = report.frame.to_dict("records")
    assert (row["operator"], row["holdout"], row["tried"], row["chosen_recipe"]) == ("tvconv", "A", 2, "lr=1-x")
    assert [row[key] for key in ("validation", "value", "pretended", "gain")] == pytest.approx([80, 60, 65, 5])
    assert report.layout.rows == (("tvconv", "A", "2", "1", "tvconv-lr=1-x", "80.00", "60.00", "65.00", "+5.00"),)


def test_of_a_distance_less_is_better_and_the_gain_is_above_zero(ran):
    tried = [ran([0.8], CASES, recipe="lr=1-x"), ran([0.7], CASES + 0.05, recipe="lr=2-x")]
    row = search_table(tried, search(tried), "hd").frame.iloc[0]
    assert row[["value", "pretended", "gain"]].tolist() == pytest.approx([40, 35, 5])


def test_the_choice_is_the_mean_over_seeds_and_anew_for_each_unseen_domain(ran):
    """In A the means are 75 and 70, though one seed of the second has 90; in B the second is better."""
    tried = [
        *(ran([dice], CASES, recipe="lr=1-x", seed=seed) for seed, dice in enumerate((0.7, 0.8))),
        *(ran([dice], CASES, recipe="lr=2-x", seed=seed) for seed, dice in enumerate((0.5, 0.9))),
        *(ran([0.6], CASES, recipe="lr=1-x", holdout="B", seed=seed) for seed in (0, 1)),
        *(ran([0.9], CASES, recipe="lr=2-x", holdout="B", seed=seed) for seed in (0, 1)),
    ]
    found = search(tried)
    assert {choice.holdout: choice.chosen.recipe for choice in found.choices} == {"A": "lr=1-x", "B": "lr=2-x"}
    assert len({each.meta.column for each in found.evaluations}) == 1
    assert len(found.evaluations) == 4


def test_runs_of_other_holdouts_have_no_part_in_the_choice(ran):
    """Their validation photographs are of the unseen domain, however much better they say that a recipe is."""
    own = [ran([0.8], CASES, recipe="lr=1-x"), ran([0.7], CASES, recipe="lr=2-x")]
    elsewhere = [ran([0.1], CASES, recipe="lr=1-x", holdout="B"), ran([0.9], CASES, recipe="lr=2-x", holdout="B")]
    assert search([*own, *elsewhere]).choices[0].chosen.recipe == "lr=1-x"


def test_recipes_with_other_weights_or_plugins_stand_in_one_column_once_they_are_chosen(ran):
    tried = [
        ran([dice], CASES, recipe=f"encoder={encoder}-x", holdout=holdout, code={"encoder_weights": encoder})
        for holdout, better in (("A", "one"), ("B", "two"))
        for encoder in ("one", "two")
        for dice in [0.9 if encoder == better else 0.5]
    ]
    found = search(tried)
    assert [each.path for each in found.evaluations] == [tried[0].path, tried[3].path]
    assert score_table(found.evaluations).frame["operator"].unique().tolist() == ["tvconv"]


def test_validation_on_other_sources_does_not_compare(ran):
    """Photographs of B alone may be easier than those of B and C."""
    one, both = {"B/test": "b"}, {"B/test": "b", "C/test": "c"}
    tried = [ran([0.9], CASES, recipe="domains=x", data=one), ran([0.8], CASES, data=both)]
    with pytest.raises(ProtocolError, match="validated on other photographs"):
        search(tried)


def test_of_equal_recipes_the_first_is_taken_and_one_recipe_stays_what_it_is(ran):
    tried = [ran([0.8], CASES, recipe=recipe) for recipe in ("lr=2-x", "lr=1-x")]
    assert search(tried).choices[0].chosen.recipe == "lr=1-x"
    assert search(tried[:1]).evaluations[0].meta.run.recipe == "lr=2-x"
    assert search(tried[:1]).tried == {"tvconv": 1}


def test_only_common_seeds_are_compared_and_the_others_are_named(ran):
    """Seed 1 of the first, with the highest Dice of all, was not tried with the second."""
    tried = [ran([0.6], CASES, recipe="lr=1-x"), ran([1.0], CASES, recipe="lr=1-x", seed=1)]
    tried.append(ran([0.7], CASES, recipe="lr=2-x"))
    found = search(tried)
    assert found.choices[0].chosen.recipe == "lr=2-x"
    assert found.unused == ("unseen A: tvconv-lr=1-x alone has 1 seed (1)",)
    assert f"not used: {found.unused[0]}" in search_table(tried, found).layout.notes
    with pytest.raises(ProtocolError, match="no seed that all of tvconv-lr=1-x, tvconv-lr=2-x have"):
        search(tried[1:])


@pytest.mark.parametrize("selection", ["oracle", "last"])
def test_other_selections_are_refused(ran, selection):
    with pytest.raises(ProtocolError, match=f"selection {selection}, and settings are chosen by source-validation"):
        search([ran([0.8], CASES), ran([0.8], CASES, selection=selection)])


def test_a_run_without_validation_scores_is_named(ran):
    run = ran([0.8], CASES)
    metrics = RunFolder(run.path.parent.parent).metrics
    write_rows(metrics, [{"epoch": 1, "loss_disc": 0.5}])
    with pytest.raises(RunError, match=r"metrics\.csv: holds no validation Dice"):
        search([run])
    metrics.unlink()
    with pytest.raises(RunError, match=r"metrics\.csv: cannot be read"):
        search([run])


def test_tests_and_intervals_are_corrected_for_the_pairs_that_were_tried(ran):
    """Three recipes of tvconv and two of conv make six pairs."""
    rng = np.random.default_rng(0)
    tried = [
        ran([0.8 - number / 10], CASES + rng.normal(0.02, 0.02, 10), operator=operator, recipe=f"r={number}", seed=seed)
        for operator, count in (("tvconv", 3), ("conv", 2))
        for number in range(count)
        for seed in range(3)
    ]  # fmt: skip
    found = search(tried)
    assert found.tried == {"conv": 2, "tvconv": 3}
    plain = operators_table(found.evaluations, ["tvconv", "conv"])
    report = operators_table(found.evaluations, ["tvconv", "conv"], tried=found.tried)
    for uncorrected, corrected in zip(plain.frame.to_dict("records"), report.frame.to_dict("records"), strict=True):
        assert corrected["p"] == uncorrected["p"]
        assert corrected["p_holm"] == pytest.approx(min(6 * uncorrected["p_holm"], 1))
        assert corrected["p_runs"] == pytest.approx(min(6 * uncorrected["p_runs"], 1))
        assert corrected["low"] < uncorrected["low"] < uncorrected["high"] < corrected["high"]
        assert corrected["difference"] == uncorrected["difference"]
    assert "difference [99.17 %]" in report.layout.columns
    assert any(note.startswith("corrected for 3 x 2 = 6 pairs of settings") for note in report.layout.notes)
    assert "difference [95 %]" in plain.layout.columns
    assert not any("corrected for" in note for note in plain.layout.notes)


def test_a_corrected_interval_is_that_of_its_level():
    """Of 400 cases the mean is normal: an interval that misses in one of a hundred is 2.576 / 1.96 times as wide."""
    values = np.random.default_rng(0).normal(0, 1, (1, 400))
    usual, wide = bootstrap_interval(values), bootstrap_interval(values, level=0.01)
    assert (wide.high - wide.low) / (usual.high - usual.low) == pytest.approx(2.576 / 1.96, rel=0.05)


def test_the_command_shows_what_was_tried_and_then_the_comparison(command, draw_root, tmp_path):
    data = open_root(draw_root())
    for op in ("conv", "tvconv"):
        for rate in ("0.001", "0.0003"):
            evaluate(train(settings(f"optim.lr={rate}", op=op), data, tmp_path / "runs"))
    printed = command("compare", tmp_path / "runs", "--best-of", "--format", "markdown").out
    assert "Settings tried and chosen" in printed
    assert "tvconv-best-of-2 and conv-best-of-2" in printed
    assert "corrected for 2 x 2 = 4 pairs of settings tried" in printed
    assert "--best-of with --to" in command("compare", tmp_path, "--best-of", "--to", "tvconv2022", code=2).err
    assert "leave --checkpoint out" in command("compare", tmp_path, "--best-of", "--checkpoint", "last", code=2).err
