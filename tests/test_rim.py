from __future__ import annotations

import math

import numpy as np
import pytest

from fundus_seg.metrics import IsntOrder, isnt_order, rim_profile


def circle(row: float, column: float, radius: float, *, shape=(200, 200), spacing=(1.0, 1.0)) -> np.ndarray:
    """Centre and radius in the units of the spacing."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows * spacing[0] - row, columns * spacing[1] - column) < radius


def widths(superior: float, right: float, inferior: float, left: float) -> np.ndarray:
    """A profile of equal hours in each quadrant, clockwise from 11 o'clock."""
    return np.roll(np.repeat([superior, right, inferior, left], 3).astype(float), -1)


def test_rim_of_concentric_circles_is_the_difference_of_their_radii():
    profile = rim_profile(circle(100, 100, 60), circle(100, 100, 25))
    np.testing.assert_allclose(profile, 35, atol=0.75)


def test_rim_is_narrow_where_the_cup_lies():
    profile = rim_profile(circle(100, 100, 60), circle(85, 100, 25))  # the cup 15 rows above the centre
    assert profile[0] == pytest.approx(60 - 40, abs=1)
    assert profile[6] == pytest.approx(60 - 10, abs=1)
    # At 3 o'clock the ray leaves the cup at sqrt(25² - 15²) = 20; half of the hour's rays look above that, half below.
    assert profile[3] == pytest.approx(60 - 20, abs=1.5)
    np.testing.assert_allclose(profile[1:6], profile[:6:-1], atol=0.75)


def test_hours_run_clockwise_as_seen():
    right = rim_profile(circle(100, 100, 60), circle(100, 115, 25))
    assert right.argmin() == 3
    assert rim_profile(circle(100, 100, 60), circle(115, 100, 25)).argmin() == 6


def test_widths_are_in_units_of_the_spacing():
    spacing, shape = (0.5, 2.0), (400, 100)
    disc, cup = (circle(100, 100, radius, shape=shape, spacing=spacing) for radius in (60, 25))
    np.testing.assert_allclose(rim_profile(disc, cup, spacing=spacing), 35, atol=2)


def test_no_cup_leaves_the_radius_and_a_cup_beyond_the_disc_nothing():
    disc, empty = circle(100, 100, 60), np.zeros((200, 200), bool)
    np.testing.assert_allclose(rim_profile(disc, empty), 60, atol=0.75)
    assert rim_profile(disc, circle(100, 100, 70)).tolist() == [0] * 12
    assert np.isnan(rim_profile(empty, disc)).all()


def test_disc_cut_by_the_frame_ends_there():
    profile = rim_profile(np.ones((41, 41), bool), np.zeros((41, 41), bool))
    assert profile[3] == pytest.approx(20.5, abs=1)


def test_isnt_rule_of_both_eyes():
    right_eye = widths(superior=30, right=25, inferior=35, left=20)  # the wider side, nasal, on the right
    assert isnt_order(right_eye, "OD") == IsntOrder(True, True, True)
    assert isnt_order(right_eye, "OD").holds
    assert isnt_order(right_eye, "OS") == IsntOrder(True, True, False)
    assert isnt_order(right_eye, "OS").holds is False


def test_without_laterality_only_inferior_and_superior_are_compared():
    order = isnt_order(widths(superior=30, right=25, inferior=35, left=20))
    assert order == IsntOrder(True, None, None)
    assert order.holds is None
    assert isnt_order(widths(superior=36, right=25, inferior=35, left=20)).holds is False


def test_equal_widths_keep_the_order_and_undefined_ones_decide_nothing():
    assert isnt_order(widths(1, 1, 1, 1), "OD").holds
    assert isnt_order(np.full(12, math.nan), "OD") == IsntOrder(None, None, None)


def test_what_is_no_profile_or_no_eye_is_refused():
    with pytest.raises(ValueError, match=r"\(12,\), got shape \(4,\)"):
        isnt_order(np.ones(4))
    with pytest.raises(ValueError, match="'OD', 'OS' or None, got 'left'"):
        isnt_order(np.ones(12), "left")
    with pytest.raises(ValueError, match="two finite positive numbers"):
        rim_profile(circle(100, 100, 60), circle(100, 100, 25), spacing=(-1, 1))
    with pytest.raises(ValueError, match="boolean"):
        rim_profile(np.ones((3, 3)), np.ones((3, 3)))
