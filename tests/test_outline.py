"""The smooth outline, and masks that are anatomical by construction."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus_seg.inference.outline import smooth_outline
from fundus_seg.inference.postprocess import anatomical, clean, clean_by
from fundus_seg.metrics import component_count, dice, hole_count, pixels_outside
from fundus_seg.protocol import Scoring


def ellipse(x, y, width, height, side=200):
    rows, columns = np.mgrid[:side, :side] + 0.5
    return np.hypot((columns - x) / width, (rows - y) / height) < 0.5


class TestOutline:
    @pytest.mark.parametrize(("width", "height", "least"), [(100, 100, 0.995), (80, 100, 0.99), (30, 24, 0.97)])
    def test_an_ellipse_stays_as_it_is(self, width, height, least):
        mask = ellipse(95, 110, width, height)
        assert dice(smooth_outline(mask), mask) > least

    @pytest.mark.parametrize("harmonics", [0, 2, 6, 20])
    def test_the_area_stays_and_no_harmonic_makes_a_circle(self, harmonics):
        mask = ellipse(100, 100, 60, 120) & ~ellipse(100, 40, 30, 30)
        smooth = smooth_outline(mask, harmonics)
        assert smooth.sum() == pytest.approx(mask.sum(), rel=0.01)
        if harmonics == 0:
            rows, columns = np.nonzero(smooth)
            assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)

    def test_a_ragged_border_becomes_smooth(self):
        """Teeth of 5 pixels around a disc of 100 make its outline half as long again."""
        rows, columns = np.mgrid[:200, :200] - 99.5
        radius = 50 + 5 * np.sign(np.sin(30 * np.arctan2(rows, columns)))
        smooth = smooth_outline(np.hypot(rows, columns) < radius)
        assert dice(smooth, np.hypot(rows, columns) < 50) > 0.97
        ((outline,), _) = cv2.findContours(smooth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        assert cv2.contourArea(outline) / cv2.contourArea(cv2.convexHull(outline)) > 0.99

    def test_it_reaches_beyond_no_frame(self):
        mask = ellipse(10, 190, 80, 80)
        smooth = smooth_outline(mask)
        assert smooth.shape == mask.shape
        assert dice(smooth, mask) > 0.85  # the frame cuts the outline of what it has cut

    def test_an_empty_mask_stays_empty_and_a_pixel_a_pixel(self):
        mask = np.zeros((9, 9), bool)
        assert not smooth_outline(mask).any()
        mask[0, 8] = True
        np.testing.assert_array_equal(smooth_outline(mask), mask)

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(ValueError, match="harmonics must be 0 or more, got -1"):
            smooth_outline(np.zeros((3, 3), bool), -1)
        with pytest.raises(ValueError, match="boolean"):
            smooth_outline(np.zeros((3, 3), np.uint8))


class TestAnatomical:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.05, 0.95))
    def test_whatever_is_predicted_is_sound(self, seed, scale, share):
        rng = np.random.default_rng(seed)
        noise = [cv2.GaussianBlur(rng.random((64, 80)), (0, 0), scale / 4) for _ in range(2)]
        disc, cup = anatomical(np.stack([each > np.quantile(each, share) for each in noise]))
        for mask in (disc, cup):
            assert component_count(mask) <= 1
            assert hole_count(mask) <= 0
        assert pixels_outside(cup, disc) == 0

    def test_a_cup_that_leaves_the_disc_is_cut(self):
        disc, cup = ellipse(100, 100, 100, 100), ellipse(140, 100, 60, 60)
        masks = anatomical(np.stack([disc, cup]))
        assert pixels_outside(masks[1], masks[0]) == 0
        assert dice(masks[1], disc & cup) > 0.95

    def test_the_protocol_asks_for_it(self):
        raw = np.stack([ellipse(100, 100, 100, 100), ellipse(140, 100, 60, 60)])
        np.testing.assert_array_equal(clean_by(Scoring(), raw), clean(raw))
        np.testing.assert_array_equal(clean_by(Scoring(anatomical=True), raw), anatomical(clean(raw)))
