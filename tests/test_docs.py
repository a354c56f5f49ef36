"""The pages that `make docs` writes, what they are computed from, and the arithmetic that they show."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from fundus_seg.config import load_recipe, load_scoring
from fundus_seg.evaluation.score_case import score_case
from fundus_seg.experiments.capacity import BYTES_PER_PIXEL
from fundus_seg.metrics import (
    average_surface_distance,
    average_symmetric_surface_distance,
    dice,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    jaccard,
    normalized_surface_dice,
    surface_distances,
    vertical_cup_to_disc_ratio,
)
from fundus_seg.protocol import Scoring

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def module(monkeypatch):
    """A function that imports a module of docs/."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module


class TestPages:
    def test_making_them_again_changes_nothing(self, module):
        make = module("make")
        for page, text in make.pages().items():
            assert page.read_text("utf8") == text, f"{page}: run `make docs`"

    def test_every_part_stands_in_one_of_them(self, module):
        make = module("make")
        pages = "".join(page.read_text("utf8") for page in make.PAGES)
        assert [name for name in make.PARTS if pages.count(f"<!-- {name}: written by make docs") != 1] == []

    def test_a_part_is_made_anew(self, module, monkeypatch):
        make = module("make")
        monkeypatch.setitem(make.PARTS, "speed", lambda: "fast")
        text = "<!-- speed: written by make docs -->\n{}<!-- speed: end -->\n"
        assert make.made(text.format("slow\n")) == text.format("\nfast\n\n")


class TestScaling:
    def test_the_grid_reckons_with_the_largest_measured_operator(self, module):
        size = load_recipe("paper").data.size
        assert BYTES_PER_PIXEL * size**2 == max(module("made_scaling").TENSORS_MIB.values()) * 2**20

    def test_no_holdout_changes_the_steps_of_an_epoch(self, module):
        scaling = module("made_scaling")
        train = scaling.TRAIN
        assert {max(count for key, count in train.items() if key != holdout) for holdout in train} == {320}
        assert scaling.steps_of_an_epoch() == 20


class TestDistances:
    def test_the_arithmetic_of_the_drawing(self, module):
        prediction, truth = module("made_distances").masks()
        d = surface_distances(prediction, truth)
        assert sorted(d.prediction_to_truth) == [0] * 19 + [1, 2, 3, 4]
        assert sorted(d.truth_to_prediction) == [0] * 19 + [1]
        assert hausdorff(d) == 4
        assert hausdorff95(d) == pytest.approx(1 + 0.9 * 1)  # at 0.95 * 42 = 39.9 of the sorted 43
        assert hausdorff95_max(d) == pytest.approx(2 + 0.9 * 1)  # at 0.95 * 22 = 20.9 of the sorted 23
        assert np.percentile(d.truth_to_prediction, 95) == pytest.approx(0.05)
        assert average_surface_distance(d) == pytest.approx((1 + 2 + 3 + 4) / 23)
        assert average_symmetric_surface_distance(d) == pytest.approx((10 + 1) / 43)
        assert normalized_surface_dice(d, 1) == pytest.approx((43 - 3) / 43)
        assert dice(prediction, truth) == pytest.approx(2 * 36 / (36 + 40))
        assert jaccard(prediction, truth) == pytest.approx(36 / 40)
        assert d.truth_to_prediction.mean() == pytest.approx(1 / 20)

    def test_the_drawing_as_a_photograph(self, module):
        pair = tuple(np.stack([mask, mask]) for mask in module("made_distances").masks())
        disc, _ = score_case(*pair, scoring=Scoring())
        assert disc["hd"] == pytest.approx(4 * 800 / 12)

    def test_the_rules_of_the_released_code(self, module):
        released = load_scoring("released-code")
        pair = tuple(np.stack([mask, mask]) for mask in module("made_distances").masks())
        disc, _ = score_case(*pair, scoring=released)
        assert disc["hd"] > disc["hd95"]
        assert disc["dsc"] == pytest.approx((2 * 36 + 1) / (36 + 40 + 1))
        assert (released.threshold, released.empty_distance, released.empty_check) == (0.75, 100, "cup")

    def test_a_real_distance_can_be_far_above_the_penalty(self):
        corners = np.zeros((2, 800, 800), bool)
        corners[0, 0, 0] = corners[1, -1, -1] = True
        assert hausdorff(surface_distances(*corners)) == pytest.approx(799 * math.sqrt(2))
        assert Scoring().empty_distance == 100

    def test_where_nothing_can_be_measured(self, module):
        square, nothing = module("made_distances").masks()[1], np.zeros((12, 12), bool)
        missed = surface_distances(nothing, square)
        assert [dice(nothing, square), jaccard(nothing, square), normalized_surface_dice(missed, 5)] == [0, 0, 0]
        assert math.isnan(hausdorff(missed))
        for prediction in (square, nothing):
            unfound = surface_distances(prediction, nothing)
            scores = (dice(prediction, nothing), jaccard(prediction, nothing), normalized_surface_dice(unfound, 5))
            assert all(map(math.isnan, (*scores, hausdorff(unfound))))
        assert math.isnan(vertical_cup_to_disc_ratio(nothing, nothing))
        assert vertical_cup_to_disc_ratio(square, nothing) == 0
