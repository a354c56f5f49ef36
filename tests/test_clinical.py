from __future__ import annotations

import math

import numpy as np
import pytest

from fundus_seg.metrics import (
    area_cup_to_disc_ratio,
    extents,
    horizontal_cup_to_disc_ratio,
    vertical_cup_to_disc_ratio,
)

RATIOS = (vertical_cup_to_disc_ratio, horizontal_cup_to_disc_ratio, area_cup_to_disc_ratio)


def rows(first: int, last: int) -> np.ndarray:
    """A mask with pixels in rows `first` to `last` of 10, each row in other columns."""
    mask = np.zeros((10, 10), bool)
    for row in range(first, last + 1):
        mask[row, row % 3 : row % 3 + 4] = True
    return mask


def test_ratio_of_row_extents():
    assert vertical_cup_to_disc_ratio(rows(1, 8), rows(3, 5)) == 3 / 8  # rows 1..8 are 8 rows, 3..5 are 3


def test_one_row_counts_as_one():
    assert vertical_cup_to_disc_ratio(rows(4, 4), rows(4, 4)) == 1


def test_the_frame_is_part_of_the_extent():
    assert vertical_cup_to_disc_ratio(rows(0, 9), rows(0, 4)) == 5 / 10


def test_gaps_belong_to_the_extent():
    assert vertical_cup_to_disc_ratio(rows(0, 9), rows(1, 2) | rows(7, 7)) == 7 / 10


def test_horizontal_extent_is_ignored():
    disc, cup = rows(0, 7), rows(2, 3)
    assert vertical_cup_to_disc_ratio(np.roll(disc, 2, axis=1), cup) == vertical_cup_to_disc_ratio(disc, cup)


def test_three_ratios_of_one_drawn_case():
    disc, cup = np.zeros((10, 20), bool), np.zeros((10, 20), bool)
    disc[1:9, 2:18] = True  # 8 rows, 16 columns, 128 pixels
    cup[3:5, 4:12] = True  # 2 rows, 8 columns, 16 pixels
    assert [ratio(disc, cup) for ratio in RATIOS] == [2 / 8, 8 / 16, 16 / 128]
    assert [ratio(disc.T, cup.T) for ratio in RATIOS] == [8 / 16, 2 / 8, 16 / 128]


def test_a_cup_larger_than_the_disc_is_told():
    assert [ratio(rows(3, 5), np.ones((10, 10), bool)) > 1 for ratio in RATIOS] == [True] * 3


def test_extents_are_of_all_parts():
    assert extents(rows(1, 2) | rows(8, 8)) == (8, 5)  # rows 1..8; row 2 begins at column 2, row 1 at 1, to column 5
    assert extents(np.zeros((3, 4), bool)) == (0, 0)


@pytest.mark.parametrize("ratio", RATIOS)
def test_empty_masks(ratio):
    empty, disc = np.zeros((10, 10), bool), rows(1, 8)
    assert ratio(disc, empty) == 0
    assert math.isnan(ratio(empty, disc))
    assert math.isnan(ratio(empty, empty))


@pytest.mark.parametrize("ratio", RATIOS)
def test_wrong_masks_are_refused(ratio):
    with pytest.raises(ValueError, match=r"\(10, 10\) and \(9, 10\)"):
        ratio(rows(1, 8), rows(3, 5)[1:])
    with pytest.raises(ValueError, match=r"\(H, W\), got shape \(2, 10, 10\)"):
        ratio(*2 * [np.stack(2 * [rows(1, 8)])])
    with pytest.raises(ValueError, match="boolean"):
        ratio(rows(1, 8).astype(int), rows(3, 5).astype(int))
