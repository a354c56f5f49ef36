from __future__ import annotations

import math

import numpy as np
import pytest

from fundus_seg.metrics import vertical_cup_to_disc_ratio


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


def test_empty_masks():
    empty, disc = np.zeros((10, 10), bool), rows(1, 8)
    assert vertical_cup_to_disc_ratio(disc, empty) == 0
    assert math.isnan(vertical_cup_to_disc_ratio(empty, disc))
    assert math.isnan(vertical_cup_to_disc_ratio(empty, empty))


def test_wrong_masks_are_refused():
    with pytest.raises(ValueError, match=r"\(10, 10\) and \(9, 10\)"):
        vertical_cup_to_disc_ratio(rows(1, 8), rows(3, 5)[1:])
    with pytest.raises(ValueError, match=r"\(H, W\), got shape \(2, 10, 10\)"):
        vertical_cup_to_disc_ratio(*2 * [np.stack(2 * [rows(1, 8)])])
    with pytest.raises(ValueError, match="boolean"):
        vertical_cup_to_disc_ratio(rows(1, 8).astype(int), rows(3, 5).astype(int))
