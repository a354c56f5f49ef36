"""Photographs moved together with their true masks: the maps, the scores, the table and its plot."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from small_runs import Lines, evaluation_of, identity, settings

from fundus_seg.data.layout import open_root
from fundus_seg.errors import UsageError
from fundus_seg.evaluation import evaluate_runs
from fundus_seg.evaluation.perturbation import STRENGTHS, Move, Perturbed, identity_of, strengths_of
from fundus_seg.evaluation.perturbed import perturb_runs
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.reporting.perturbed import perturbed_reports
from fundus_seg.training import train


def square(side: int = 21) -> np.ndarray:
    """Masks (2, H, W) of a disc and its cup, of no symmetry."""
    masks = np.zeros((2, side, side), bool)
    masks[0, 4:12, 6:17], masks[1, 5:8, 7:15] = True, True
    return masks


class TestMaps:
    def test_a_quarter_turn_is_counter_clockwise_for_both(self):
        masks = square()
        image = np.repeat(np.random.default_rng(0).integers(0, 256, (21, 21, 1), np.uint8), 3, axis=2)
        turn = Move("rotate", 90)
        np.testing.assert_array_equal(turn.masks(masks), np.rot90(masks, axes=(1, 2)))
        np.testing.assert_array_equal(turn.image(image), np.rot90(image))

    @pytest.mark.parametrize("kind", STRENGTHS)
    def test_a_truth_stays_on_its_photograph(self, kind):
        """The photograph is bright where the disc is: its moved disc is bright, up to the outline's own pixels."""
        disc = np.zeros((60, 80), bool)
        disc[20:36, 30:54] = True
        image = np.repeat((200 * disc)[..., None].astype(np.uint8), 3, axis=2)
        for strength in STRENGTHS[kind]:
            move = Move(kind, strength)
            moved = move.masks(np.stack([disc, disc]))[0]
            bright = move.image(image)[..., 0] > 100
            assert (moved != bright).sum() < 0.15 * moved.sum()
            assert (moved != disc).any() == (strength != identity_of(kind))

    def test_a_translation_moves_right_by_a_share_of_the_width(self):
        masks = square(20)
        np.testing.assert_array_equal(Move("translate", 0.1).masks(masks), np.roll(masks, 2, axis=2))

    def test_a_scale_keeps_the_middle_and_squares_the_area(self):
        masks = np.zeros((2, 41, 41), bool)
        masks[:, 16:25, 16:25] = True
        assert Move("scale", 3).masks(masks)[0].sum() == 27**2

    def test_a_shear_moves_rows_below_the_middle_to_the_right(self):
        masks = np.zeros((2, 41, 41), bool)
        masks[:, :, 20] = True
        rows, columns = np.nonzero(Move("shear", 45).masks(masks)[0])
        np.testing.assert_array_equal(columns, rows)

    def test_the_photograph_is_reflected_and_the_truth_is_not(self):
        image, masks = np.full((20, 20, 3), 9, np.uint8), np.ones((2, 20, 20), bool)
        move = Move("translate", 0.25)
        assert (move.image(image) == 9).all()
        assert move.masks(masks)[0].sum() == 20 * 15

    def test_strengths_are_in_order_and_hold_the_photograph_as_it_is(self):
        assert strengths_of("rotate", [20, -10]) == [-10, 0, 20]
        assert strengths_of("scale", [0.5]) == [0.5, 1]
        for kind, wrong in (("scale", 0), ("shear", 90), ("translate", float("nan"))):
            with pytest.raises(UsageError, match=kind):
                strengths_of(kind, [wrong])


@pytest.fixture
def runs(draw_root, tmp_path):
    root = open_root(draw_root("trained", train=2, test=8))
    config = settings("train.epochs=1", "train.steps_per_epoch=1", "scoring.threshold=0.4", holdout="B", op="depthwise")
    train(config, root, tmp_path / "runs")
    return tmp_path / "runs"


def test_zero_strength_is_evaluate_and_nothing_is_written(runs, command):
    found = evaluate_runs([runs]).evaluations
    before = sorted(runs.rglob("*"))
    moved = perturb_runs(found, [runs], "translate", [0.3])
    assert sorted(runs.rglob("*")) == before
    assert [*moved.evaluations] == [0, 0.3]
    (plain,), (far,) = moved.evaluations.values()
    pd.testing.assert_frame_equal(plain.cases, found[0].cases, check_dtype=False, check_exact=True)
    assert not np.array_equal(far.cases["truth_pixels"], plain.cases["truth_pixels"])
    (report,) = perturbed_reports(moved, ["dsc"])
    score = found[0].cases.groupby("structure")["dsc"].mean() * 100
    own = report.frame[report.frame["strength"] == 0].set_index("structure")
    assert own["mean"].to_dict() == pytest.approx(score.to_dict())
    assert (own[["change", "change_low", "change_high"]] == 0).all(axis=None)
    far_rows = report.frame[report.frame["strength"] == 0.3].set_index("structure")
    assert (far_rows["mean"] - own["mean"]).to_dict() == pytest.approx(far_rows["change"].to_dict())

    for protocol in ({"views": "flip"}, {"adapt_batch_norms": 0}):
        own = evaluate_runs([runs], **protocol).evaluations
        ((same,),) = perturb_runs(own, [runs], "rotate", []).evaluations.values()
        pd.testing.assert_frame_equal(same.cases, own[0].cases, check_dtype=False, check_exact=True)

    options = ("--perturb", "scale", "--strengths", "0.8", "--metrics", "dsc", "--format", "csv", "--plots", "plots")
    printed = command("evaluate", runs, *options)
    tables = printed.out.split("# Scaled photographs of unseen domains")
    frame = pd.read_csv(io.StringIO(tables[1]), comment="#", skiprows=1, keep_default_na=False, na_values=["NA"])
    assert set(frame["strength"]) == {0.8, 1}
    assert "selection: source-validation" in tables[1]
    assert "scoring protocol" in tables[1]
    assert (runs.parent / "plots" / "perturb-scale-dsc.svg").is_file()
    assert "one map" in command("evaluate", runs, "--strengths", "1", code=2).err


def test_masks_of_other_tools_are_left_out_by_name(tmp_path):
    told = Lines()
    other = evaluation_of([], identity(operator="nnunet", preset="unknown"), checkpoint=None)
    moved = perturb_runs([other], [tmp_path], "shear", progress=told)
    assert [line for line in told.lines if "masks that another tool made" in line and str(other.path) in line]
    assert perturbed_reports(moved) == []


def test_true_masks_that_left_the_frame_are_counted_and_in_no_score():
    """Two cases with a Dice of 0.9; moved, the truth of one is gone, and the other has 0.5."""

    def scores(*disc: float | None) -> Evaluation:
        rows = [
            {"domain": "A", "case": case, "structure": structure, "truth_pixels": 0 if dsc is None else 9, "dsc": dsc}
            for case, dsc in zip("ab", disc, strict=True)
            for structure in ("disc", "cup")
        ]
        return evaluation_of([{"hd": 1.0, **row} for row in rows], identity())

    moved = Perturbed("translate", {0.0: [scores(0.9, 0.9)], 0.5: [scores(0.5, None)]})
    (report,) = perturbed_reports(moved, ["dsc"])
    assert "true masks moved out of the frame, in no score there: 2 at +50 %" in report.layout.notes
    far = report.frame[report.frame["strength"] == 0.5]
    assert far["mean"].tolist() == [50, 50]
    assert far["change"].tolist() == pytest.approx([-40, -40])
