"""The numbers on the pages of docs/, computed again."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from fundus_seg import metrics
from fundus_seg.config import load_scoring
from fundus_seg.evaluation.score_case import score_case
from fundus_seg.metrics import (
    dice,
    hausdorff,
    jaccard,
    normalized_surface_dice,
    surface_distances,
)
from fundus_seg.protocol import Scoring

PAGE = Path(__file__).parents[1].joinpath("docs", "distances.md").read_text("utf8")


def panels():
    """The three drawings, (12, 12) characters each: masks, distances of the prediction's border, of the truth's."""
    block = PAGE.split("```")[1].strip("\n").splitlines()
    return np.array([[list(word) for word in line.split()] for line in block[1:]]).transpose(1, 0, 2)


def masks():
    drawn = panels()[0]
    return np.isin(drawn, ["#", "p"]), np.isin(drawn, ["#", "t"])


def rows_of(heading):
    """Cells of the rows below a table's heading."""
    lines = PAGE[PAGE.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def number(expression):
    """What a piece of arithmetic on the page comes to."""
    return eval(re.sub(r"[^0-9.()+*/-]", "", expression.replace("·", "*").replace("−", "-")))


def found_on_page(pattern):
    match = re.search(pattern, re.sub(r"\s+", " ", PAGE))
    assert match, pattern
    return match


def test_the_drawn_distances_are_those_of_the_drawn_masks():
    _, to_truth, to_prediction = panels()
    assert to_truth.shape == (12, 12)
    distances = surface_distances(*masks())
    for drawn, measured in (
        (to_truth, distances.prediction_to_truth),
        (to_prediction, distances.truth_to_prediction),
    ):
        assert sorted(drawn[drawn != "."].astype(float)) == sorted(measured)


def test_every_distance_in_the_table():
    distances = surface_distances(*masks())
    rows = rows_of("| measure | value [px]")
    assert len(rows) == 5
    for _, value, _, function in rows:
        assert getattr(metrics, function.strip("`"))(distances) == pytest.approx(float(value), abs=5e-5), function


def test_every_overlap_in_the_table():
    distances = surface_distances(*masks())
    measured = {
        "`normalized_surface_dice`": normalized_surface_dice(distances, 1),
        "`dice`": dice(*masks()),
        "`jaccard`": jaccard(*masks()),
    }
    shown = {function: float(value) for _, value, _, function in rows_of("| measure | value [%]")}
    assert shown == pytest.approx({function: 100 * value for function, value in measured.items()}, abs=5e-3)


def test_the_arithmetic_comes_to_the_values():
    rows = {row[0]: (float(row[1]), row[2]) for row in rows_of("| measure | value [px]")}
    for measure in ("ASD, prediction to truth", "ASSD"):
        value, arithmetic = rows[measure]
        assert number(arithmetic) == pytest.approx(value, abs=5e-5)
    for measure in ("HD95, both directions pooled", "HD95-max, the larger direction"):
        value, arithmetic = rows[measure]
        place, between = arithmetic.split(";")[0], arithmetic.split(";")[-1].split("(")[0]
        terms, at = place.removeprefix("place ").split(" of ")[0].split("=")
        assert number(terms) == pytest.approx(float(at))
        assert number(between) == pytest.approx(value)
    for _, value, arithmetic, _ in rows_of("| measure | value [%]"):
        assert 100 * number(arithmetic.split(":")[0]) == pytest.approx(float(value), abs=5e-3)


def test_border_pixels_in_the_text():
    distances = surface_distances(*masks())
    assert int(found_on_page(r"The truth has (\d+)\.")[1]) == distances.truth_to_prediction.size
    assert int(found_on_page(r"has 19 \+ 4 = (\d+)")[1]) == distances.prediction_to_truth.size
    assert distances.pooled.size == 43


def test_what_other_directions_and_other_means_come_to():
    distances = surface_distances(*masks())
    back, there = distances.truth_to_prediction.mean(), distances.prediction_to_truth.mean()
    assert float(found_on_page(r"it would be 1 / 20 = ([\d.]+\d)")[1]) == back
    assert float(found_on_page(r"/ 2 = (0\.\d+)\.")[1]) == pytest.approx((there + back) / 2, abs=5e-5)
    assert float(found_on_page(r"other direction has ([\d.]+)\)")[1]) == pytest.approx(
        np.percentile(distances.truth_to_prediction, 95)
    )


def test_the_drawing_as_a_photograph():
    pair = tuple(np.stack([mask, mask]) for mask in masks())
    disc, _ = score_case(*pair, scoring=Scoring())
    assert float(found_on_page(r"800 / 12 = ([\d.]+\d)")[1]) == pytest.approx(disc["hd"], abs=5e-3)


def test_released_scoring_as_the_page_says():
    released = load_scoring("released-code")
    pair = tuple(np.stack([mask, mask]) for mask in masks())
    disc, _ = score_case(*pair, scoring=released)
    assert disc["hd"] > disc["hd95"]
    assert float(found_on_page(r"73 / 77 = ([\d.]+) %")[1]) == pytest.approx(100 * disc["dsc"], abs=5e-3)
    assert float(found_on_page(r"threshold of ([\d.]+),")[1]) == released.threshold
    assert float(found_on_page(r"empty prediction counts as (\d+),")[1]) == released.empty_distance
    assert released.empty_check == "cup"


def test_a_real_distance_can_be_far_above_the_penalty():
    corners = np.zeros((2, 800, 800), bool)
    corners[0, 0, 0] = corners[1, -1, -1] = True
    largest = float(found_on_page(r"√2 = (\d+)")[1])
    assert largest == pytest.approx(hausdorff(surface_distances(*corners)), abs=0.5)
    assert largest > Scoring().empty_distance


def test_the_empty_policy_is_what_the_records_hold():
    square, nothing = masks()[1], np.zeros((12, 12), bool)
    rows = {name: cells for name, *cells in rows_of("| | prediction empty")}
    assert rows["DSC, Jaccard, NSD"][0] == "0"
    missed = surface_distances(nothing, square)
    assert [dice(nothing, square), jaccard(nothing, square), normalized_surface_dice(missed, 5)] == [0, 0, 0]
    for prediction in (square, nothing):
        unfound = surface_distances(prediction, nothing)
        scores = (dice(prediction, nothing), jaccard(prediction, nothing), normalized_surface_dice(unfound, 5))
        assert all(map(math.isnan, (*scores, hausdorff(unfound))))
    assert math.isnan(hausdorff(missed))
    assert f"{Scoring().empty_distance:g}" in rows["HD, HD95, HD95-max, ASD, ASSD"][0]
    assert math.isnan(metrics.vertical_cup_to_disc_ratio(nothing, nothing))
    assert metrics.vertical_cup_to_disc_ratio(square, nothing) == 0
    assert number(found_on_page(r"penalty it is (\(10 \+ 100\) / 2) = 55")[1]) == 55
