from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fundus_seg.metrics import dice, jaccard

# Two masks of one shape, of one to three axes, the empty and the full ones among them.
pairs = hnp.array_shapes(max_dims=3, max_side=6).flatmap(lambda shape: st.tuples(*2 * [hnp.arrays(bool, shape)]))
stable = settings(derandomize=True, deadline=None)


def test_drawn_masks():
    pred = np.array([[1, 1, 0], [1, 0, 0]], bool)  # 3 pixels
    target = np.array([[1, 1, 1], [0, 1, 0]], bool)  # 4 pixels, 2 in common, 5 in the union
    assert dice(pred, target) == 2 * 2 / (3 + 4)
    assert dice(pred, target, smooth=1) == (2 * 2 + 1) / (3 + 4 + 1)
    assert jaccard(pred, target) == 2 / 5


def test_missed_structure_scores_zero():
    pred, target = np.zeros((2, 3), bool), np.ones((2, 3), bool)
    assert dice(pred, target) == 0
    assert jaccard(pred, target) == 0
    assert dice(pred, target, smooth=1) == 1 / 7


@pytest.mark.parametrize("predicted_pixels", [0, 2])
def test_empty_truth_is_undefined_unless_smoothed(predicted_pixels):
    pred, target = np.arange(6) < predicted_pixels, np.zeros(6, bool)
    assert math.isnan(dice(pred, target))
    assert math.isnan(jaccard(pred, target))
    assert dice(pred, target, smooth=1) == 1 / (predicted_pixels + 1)


@pytest.mark.parametrize("score", [dice, jaccard])
def test_different_shapes_are_refused_and_named(score):
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        score(np.ones((2, 3), bool), np.ones((3, 2), bool))


@pytest.mark.parametrize("score", [dice, jaccard])
def test_grey_values_are_refused(score):
    with pytest.raises(ValueError, match="must be boolean NumPy arrays, got uint8"):
        score(np.ones((2, 3), bool), np.full((2, 3), 255, np.uint8))


@stable
@given(pairs)
def test_symmetry_bounds_and_the_relation_between_the_two(pair):
    pred, target = pair
    overlap, index = dice(pred, target), jaccard(pred, target)
    if not target.any():
        assert math.isnan(overlap)
        assert math.isnan(index)
        return
    assert 0 <= index <= overlap <= 1
    assert overlap == pytest.approx(2 * index / (1 + index), abs=1e-12)
    assert dice(target, target) == jaccard(target, target) == 1
    if pred.any():
        assert (overlap, index) == (dice(target, pred), jaccard(target, pred))


@stable
@given(pairs)
def test_smoothed_dice_is_defined_and_symmetric(pair):
    pred, target = pair
    assert 0 < dice(pred, target, smooth=1) <= 1
    assert dice(pred, target, smooth=1) == dice(target, pred, smooth=1)
    assert dice(pred, pred, smooth=1) == 1
