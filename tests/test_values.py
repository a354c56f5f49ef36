from __future__ import annotations

import math

import numpy as np
import pytest
from small_runs import evaluation_of, identity

from fundus_seg.evaluation.metric_table import METRICS, distances, overlaps
from fundus_seg.evaluation.policy import cup_to_disc_ratios, scored_values
from fundus_seg.evaluation.score_case import FAULTS, SIZES, score_case
from fundus_seg.metrics import (
    area_cup_to_disc_ratio,
    horizontal_cup_to_disc_ratio,
    vertical_cup_to_disc_ratio,
)
from fundus_seg.metrics.clinical import RATIOS
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.frames import case_values, summarise

NAN = math.nan
EMPTY = np.zeros((80, 80), bool)


def block(rows, columns):
    mask = EMPTY.copy()
    mask[20 : 20 + rows, 20 : 20 + columns] = True
    return mask


DISC, CUP = block(40, 30), block(10, 20)


def evaluation(*pairs, scoring=None):
    """The evaluation of (prediction, truth), each (disc, cup), as cases 0, 1 ..."""
    scoring = scoring or Scoring()
    rows = [
        row
        for number, (prediction, truth) in enumerate(pairs)
        for row in score_case(np.stack(prediction), np.stack(truth), scoring=scoring, case=str(number))
    ]
    return evaluation_of(rows, identity(), protocol=scoring)


@pytest.mark.parametrize(
    ("prediction", "truth", "overlap", "recorded", "counted", "penalised", "excluded"),
    [
        pytest.param(DISC, DISC, 100, 0, 0, False, False, id="both drawn"),
        pytest.param(EMPTY, DISC, 0, NAN, 60, True, False, id="prediction empty"),
        pytest.param(DISC, EMPTY, NAN, NAN, NAN, False, True, id="truth empty"),
        pytest.param(EMPTY, EMPTY, NAN, NAN, NAN, False, True, id="both empty"),
    ],
)
@pytest.mark.parametrize("smooth", [0, 1])
def test_the_table_of_empty_cases(prediction, truth, overlap, recorded, counted, penalised, excluded, smooth):
    scoring = Scoring(empty_distance=60, dice_smoothing=smooth)
    scored = evaluation(((prediction, CUP), (truth, CUP)), scoring=scoring)
    row, value = scored.cases.iloc[0], scored_values(scored).iloc[0]
    smoothed = 100 / (1 + DISC.sum()) if smooth and penalised else overlap  # as the released code scores a miss
    assert value["dsc"] == pytest.approx(smoothed, nan_ok=True)
    assert value[["jaccard", "nsd"]].tolist() == pytest.approx([overlap] * 2, nan_ok=True)
    assert row[overlaps()].tolist() == pytest.approx((value[overlaps()] / 100).tolist(), nan_ok=True)
    assert row[distances()].tolist() == pytest.approx([recorded] * 5, nan_ok=True)
    assert value[distances()].tolist() == pytest.approx([counted] * 5, nan_ok=True)
    assert (value["penalised"], value["excluded"]) == (penalised, excluded)


@pytest.mark.parametrize(
    ("prediction", "truth", "ratio", "true_ratio", "undefined", "excluded"),
    [
        pytest.param((DISC, CUP), (DISC, CUP), 10 / 40, 10 / 40, False, False, id="both drawn"),
        pytest.param((EMPTY, CUP), (DISC, CUP), NAN, 10 / 40, True, False, id="predicted disc empty"),
        pytest.param((DISC, EMPTY), (DISC, CUP), 0, 10 / 40, False, False, id="predicted cup empty"),
        pytest.param((EMPTY, EMPTY), (DISC, CUP), NAN, 10 / 40, True, False, id="both predictions empty"),
        pytest.param((DISC, CUP), (EMPTY, CUP), 10 / 40, NAN, False, True, id="true disc empty"),
        pytest.param((DISC, CUP), (DISC, EMPTY), 10 / 40, NAN, False, True, id="true cup empty"),
        pytest.param((EMPTY, EMPTY), (EMPTY, EMPTY), NAN, NAN, True, True, id="everything empty"),
    ],
)
def test_the_ratios_of_empty_cases(prediction, truth, ratio, true_ratio, undefined, excluded):
    row = cup_to_disc_ratios(evaluation((prediction, truth))).iloc[0]
    assert row[["vcdr", "vcdr_truth"]].tolist() == pytest.approx([ratio, true_ratio], nan_ok=True)
    assert row["vcdr_error"] == pytest.approx(abs(ratio - true_ratio), nan_ok=True)
    assert (row["undefined"], row["excluded"]) == (undefined, excluded)


def test_ratios_of_the_records_are_those_of_the_masks():
    prediction, truth = (block(40, 32), block(30, 8)), (DISC, CUP)
    table = cup_to_disc_ratios(evaluation((truth, truth), (prediction, truth)))
    assert table["case"].tolist() == ["0", "1"]
    functions = (vertical_cup_to_disc_ratio, horizontal_cup_to_disc_ratio, area_cup_to_disc_ratio)
    for name, function in zip(RATIOS, functions, strict=True):
        assert table[name].tolist() == [function(*truth), function(*prediction)]
        assert table[f"{name}_truth"].tolist() == [function(*truth)] * 2
        assert table[f"{name}_error"].tolist() == [0, abs(function(*prediction) - function(*truth))]


def test_a_mean_over_cases_counts_every_miss():
    """The trap of tools that give NaN for a miss: here two cases, one missed, one without truth."""
    runs = summarise(
        case_values([evaluation(((DISC, CUP), (DISC, CUP)), ((EMPTY, CUP), (DISC, CUP)), ((DISC, CUP), (EMPTY, CUP)))])
    )
    disc, cup = (runs[runs["structure"] == structure].iloc[0] for structure in ("disc", "cup"))
    assert disc[overlaps()].tolist() == [50] * 3  # (100 + 0) / 2
    assert disc[distances()].tolist() == [50] * 5  # (0 + 100) / 2
    assert disc[["cases", "penalised", "excluded"]].tolist() == [3, 1, 1]
    assert cup[["cases", "penalised", "excluded"]].tolist() == [3, 0, 0]


def test_records_hold_sizes_and_faults():
    disc, cup = DISC.copy(), block(50, 4)
    disc[25, 22] = False
    disc[0, 0] = True
    disc_row, cup_row = score_case(np.stack((disc, cup)), np.stack((DISC, CUP)), scoring=Scoring())
    assert [disc_row[size] for size in SIZES] == [40 * 30, 60, 50, 40 * 30, 40, 30]  # a pixel less, a pixel more
    assert [disc_row[fault] for fault in FAULTS] == [2, 1, 0]
    assert [cup_row[fault] for fault in FAULTS] == [1, 0, 10 * 4 + 1]  # ten rows below the disc, and its hole
    assert all(name in cup_row for name in METRICS)


def test_faults_are_those_of_the_raw_masks_and_all_else_of_the_clean_ones():
    raw, clean, truth = np.stack((DISC, CUP)), np.stack((DISC, CUP)), np.stack((DISC, CUP))
    raw[0, 25, 22] = False
    raw[1, 0, 0] = True
    with_raw, without = (score_case(clean, truth, raw=given, scoring=Scoring()) for given in (raw, None))
    assert [[row[fault] for fault in FAULTS] for row in with_raw] == [[1, 1, 0], [2, 0, 2]]  # a speck, over the hole
    assert [[row[fault] for fault in FAULTS] for row in without] == [[1, 0, 0], [1, 0, 0]]
    for row, other in zip(with_raw, without, strict=True):
        assert {**row, **dict.fromkeys(FAULTS)} == {**other, **dict.fromkeys(FAULTS)}


def test_distances_and_tolerance_are_in_800_pixel_units():
    """An 80x80 frame: one pixel is ten units, and a border that is off by one is off by more than the tolerance."""
    shifted = np.roll(DISC, 1, axis=1)
    row, _ = score_case(np.stack((shifted, CUP)), np.stack((DISC, CUP)), scoring=Scoring())
    assert row["hd"] == row["hd95_max"] == 10
    # Of each border's 136 pixels the 29 that the top and the bottom sides share lie on the other border.
    assert row["nsd"] == 2 * 29 / 136


def test_released_emptiness_leaves_overlaps_alone():
    released = Scoring(empty_check="cup")
    disc, cup = score_case(np.stack((DISC, EMPTY)), np.stack((DISC, CUP)), scoring=released)
    assert (disc["dsc"], disc["nsd"], cup["nsd"]) == (1, 1, 0)
    assert math.isnan(disc["hd95_max"])
