from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from medpy.metric import binary as medpy
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from fundus_seg.metrics import (
    SurfaceDistances,
    average_surface_distance,
    average_symmetric_surface_distance,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    normalized_surface_dice,
    surface_distances,
)

DISTANCES = (
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    average_surface_distance,
    average_symmetric_surface_distance,
)
ORACLES = {
    hausdorff: medpy.hd,
    hausdorff95: medpy.hd95,
    average_surface_distance: medpy.asd,
    average_symmetric_surface_distance: medpy.assd,
}

stable = settings(derandomize=True, deadline=None, max_examples=150)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)
spacings = st.tuples(*2 * [st.floats(0.1, 10)])


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, int]) -> np.ndarray:
    """A mask with a pixel at least: rectangles set or cleared, then single pixels turned over.

    The rectangles give lines, frames, holes and several components, inside the frame and touching it.
    """
    height, width = shape
    mask = np.zeros(shape, bool)
    bounds = st.tuples(*2 * [st.integers(0, height)], *2 * [st.integers(0, width)], st.booleans())
    for top, bottom, left, right, value in draw(st.lists(bounds, max_size=4)):
        mask[top:bottom, left:right] = value
    for row, column in draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), max_size=4)):
        mask[row, column] ^= True
    if not mask.any():
        mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return mask


pairs = shapes.flatmap(lambda shape: st.tuples(masks(shape), masks(shape)))


def points(shape: tuple[int, int], *pixels: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(pixels))] = True
    return mask


def square(shape: tuple[int, int], top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def distances(found: list[float], true: list[float]) -> SurfaceDistances:
    return SurfaceDistances(np.array(found, float), np.array(true, float))


class TestDrawnMasks:
    def test_two_pixels_stand_a_3_4_5_triangle_apart(self):
        d = surface_distances(points((8, 8), (1, 1)), points((8, 8), (4, 5)))
        assert [distance(d) for distance in DISTANCES] == [5] * 5

    def test_spacing_is_height_then_width(self):
        pred, target = points((8, 8), (1, 1)), points((8, 8), (2, 3))
        d = surface_distances(pred, target, spacing=(4, 1.5))  # 1 row of 4 and 2 columns of 1.5
        assert hausdorff(d) == 5

    def test_nearest_point_depends_on_spacing(self):
        pred, target = points((8, 8), (4, 4)), points((8, 8), (6, 4), (4, 7))
        assert surface_distances(pred, target).prediction_to_truth == [2]
        assert surface_distances(pred, target, spacing=(2, 1)).prediction_to_truth == [3]

    def test_directions(self):
        pred, target = points((1, 12), (0, 0)), points((1, 12), (0, 0), (0, 10))
        d = surface_distances(pred, target)
        assert d.prediction_to_truth.tolist() == [0]
        assert sorted(d.truth_to_prediction) == [0, 10]
        assert hausdorff(d) == 10
        assert average_surface_distance(d) == 0
        assert average_symmetric_surface_distance(d) == (0 + 0 + 10) / 3
        assert hausdorff95(d) == pytest.approx(0 + 0.9 * 10)  # at 0.95 * 2 = 1.9 of the sorted 0, 0, 10
        assert hausdorff95_max(d) == pytest.approx(0.95 * 10)  # at 0.95 * 1 of 0, 10; the other direction has 0

    def test_border_is_the_ring_of_a_square_and_pixels_inside_do_not_count(self):
        pred, target = square((9, 9), 2, 2, 5), points((9, 9), (4, 4))
        d = surface_distances(pred, target)
        # 16 of the 25 pixels: 4 corners at sqrt(8), 4 mid-sides at 2, 8 between at sqrt(5)
        assert sorted(d.prediction_to_truth) == pytest.approx([2] * 4 + [math.sqrt(5)] * 8 + [math.sqrt(8)] * 4)
        assert d.truth_to_prediction.tolist() == [2]

    def test_diagonal_contact_keeps_a_pixel_inside(self):
        pred = square((5, 5), 1, 1, 3)
        pred[1, 1] = False  # only a diagonal neighbour of the centre, which stays off the border
        assert surface_distances(pred, pred).prediction_to_truth.size == 7

    def test_a_hole_has_a_border(self):
        solid, holed = square((9, 9), 1, 1, 7), square((9, 9), 1, 1, 7)
        holed[4, 4] = False
        d = surface_distances(holed, solid)
        assert d.prediction_to_truth.size == 24 + 4
        assert hausdorff(d) == 2  # from (3, 4) to the ring at row 1
        assert surface_distances(solid, holed).prediction_to_truth.size == 24

    def test_mask_touching_the_frame_has_its_border_there(self):
        d = surface_distances(np.ones((4, 5), bool), points((4, 5), (0, 0)))
        assert d.prediction_to_truth.size == 2 * 5 + 2 * 2  # first and last row, and the sides between
        assert hausdorff(d) == 5

    def test_strided_views_are_measured_like_their_copies(self):
        pred, target = square((12, 10), 1, 2, 6).T[::-1], square((12, 10), 3, 1, 4).T[::-1]
        d, same = surface_distances(pred, target), surface_distances(pred.copy(), target.copy())
        np.testing.assert_array_equal(d.pooled, same.pooled)

    def test_inputs_are_left_alone(self):
        pred, target = square((9, 9), 2, 2, 5), square((9, 9), 0, 0, 3)
        before = pred.copy(), target.copy()
        pred.flags.writeable = target.flags.writeable = False
        surface_distances(pred, target)
        np.testing.assert_array_equal((pred, target), before)


class TestScoresOfGivenDistances:
    def test_percentile_pools_both_directions_or_takes_the_larger(self):
        d = distances(found=list(range(101)), true=[1] * 99)
        assert hausdorff(d) == 100
        # The sorted 200 are 0, a hundred 1s, then 2..100 from index 101 on: value = index - 99.
        assert hausdorff95(d) == pytest.approx(0.95 * 199 - 99)
        assert hausdorff95_max(d) == pytest.approx(95)

    def test_average_symmetric_distance_weighs_pixels_not_directions(self):
        d = distances(found=[4], true=[1, 1, 1])
        assert average_surface_distance(d) == 4
        assert average_symmetric_surface_distance(d) == (4 + 3) / 4

    def test_normalized_surface_dice_counts_pixels_within_the_tolerance(self):
        d = distances(found=[0, 1, 2], true=[1, 1.5])
        assert normalized_surface_dice(d, 0) == 1 / 5
        assert normalized_surface_dice(d, 1) == 3 / 5
        assert normalized_surface_dice(d, 2) == 1

    def test_tolerance_is_met_whatever_the_rounding_of_the_spacing(self):
        pred, target = points((1, 8), (0, 1)), points((1, 8), (0, 6))
        d = surface_distances(pred, target, spacing=(0.8, 0.8))  # a frame of 1000 rows in 800-pixel units
        assert d.prediction_to_truth[0] > 4  # 6 * 0.8 - 1 * 0.8, by a rounding
        assert normalized_surface_dice(d, 4) == 1

    @pytest.mark.parametrize("tolerance", [-1, math.nan])
    def test_tolerance_must_not_be_negative(self, tolerance):
        with pytest.raises(ValueError, match="at least 0"):
            normalized_surface_dice(distances([0], [0]), tolerance)


class TestEmptyMasks:
    @pytest.mark.parametrize(("predicted", "true"), [(False, True), (True, False), (False, False)])
    def test_every_distance_is_nan(self, predicted, true):
        d = surface_distances(np.full((3, 3), predicted), np.full((3, 3), true))
        assert not d.defined
        assert all(math.isnan(distance(d)) for distance in DISTANCES)

    def test_the_border_that_is_there_is_infinitely_far(self):
        missed = surface_distances(np.zeros((3, 3), bool), np.ones((3, 3), bool))
        assert missed.prediction_to_truth.size == 0
        assert missed.truth_to_prediction.tolist() == [math.inf] * 8

    def test_normalized_surface_dice_is_zero_for_a_missed_structure_and_undefined_without_truth(self):
        empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
        assert normalized_surface_dice(surface_distances(empty, full), 100) == 0
        assert math.isnan(normalized_surface_dice(surface_distances(full, empty), 100))
        assert math.isnan(normalized_surface_dice(surface_distances(empty, empty), 100))


class TestRefusals:
    def test_shapes(self):
        with pytest.raises(ValueError, match=r"\(3, 3\) and \(3, 4\)"):
            surface_distances(np.ones((3, 3), bool), np.ones((3, 4), bool))
        with pytest.raises(ValueError, match=r"\(H, W\), got shape \(2, 3, 3\)"):
            surface_distances(np.ones((2, 3, 3), bool), np.ones((2, 3, 3), bool))

    def test_grey_values(self):
        with pytest.raises(ValueError, match="boolean"):
            surface_distances(np.ones((3, 3), bool), np.ones((3, 3), np.uint8))

    @pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (math.nan, 1), (1, math.inf), (1,), (1, 1, 1)])
    def test_spacing(self, spacing):
        with pytest.raises(ValueError, match="two finite positive numbers"):
            surface_distances(np.ones((3, 3), bool), np.ones((3, 3), bool), spacing=spacing)


class TestAgainstMedPy:
    @stable
    @given(pairs, spacings)
    def test_hypothesis_masks(self, pair, spacing):
        d = surface_distances(*pair, spacing=spacing)
        for ours, theirs in ORACLES.items():
            assert ours(d) == pytest.approx(theirs(*pair, voxelspacing=spacing, connectivity=1), abs=1e-6)

    @stable
    @given(pairs, spacings, st.floats(0, 10))
    def test_scores_that_medpy_lacks_against_all_pairs_of_border_pixels(self, pair, spacing, tolerance):
        pred, target = (np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in pair)
        between = cdist(pred, target)
        found, true = between.min(axis=1), between.min(axis=0)
        d = surface_distances(*pair, spacing=spacing)
        expected = max(np.percentile(found, 95), np.percentile(true, 95))
        assert hausdorff95_max(d) == pytest.approx(expected, abs=1e-9)
        close = np.count_nonzero(found <= tolerance + 1e-9) + np.count_nonzero(true <= tolerance + 1e-9)
        assert normalized_surface_dice(d, tolerance) == pytest.approx(close / (found.size + true.size))

    def test_discs_of_a_photograph(self):
        rows, columns = np.mgrid[:200, :200]
        angle = np.arctan2(rows - 104, columns - 96)
        pred = np.hypot(rows - 104, columns - 96) < 52 * (1 + 0.05 * np.sin(5 * angle))
        target = np.hypot(rows - 100, columns - 100) < 50
        d = surface_distances(pred, target, spacing=(4, 4))
        for ours, theirs in ORACLES.items():
            assert ours(d) == pytest.approx(theirs(pred, target, voxelspacing=(4, 4), connectivity=1), abs=1e-6)


class TestProperties:
    @stable
    @given(pairs, spacings)
    def test_swapping_the_masks_swaps_the_directions(self, pair, spacing):
        d, swapped = surface_distances(*pair, spacing=spacing), surface_distances(*pair[::-1], spacing=spacing)
        np.testing.assert_array_equal(d.prediction_to_truth, swapped.truth_to_prediction)
        np.testing.assert_array_equal(d.truth_to_prediction, swapped.prediction_to_truth)
        assert hausdorff(d) == hausdorff(swapped)
        assert hausdorff95(d) == hausdorff95(swapped)
        assert hausdorff95_max(d) == hausdorff95_max(swapped)
        assert average_symmetric_surface_distance(d) == pytest.approx(average_symmetric_surface_distance(swapped))
        assert normalized_surface_dice(d, 1) == normalized_surface_dice(swapped, 1)

    @stable
    @given(shapes.flatmap(masks), spacings)
    def test_a_mask_is_no_distance_from_itself(self, mask, spacing):
        d = surface_distances(mask, mask, spacing=spacing)
        assert [distance(d) for distance in DISTANCES] == [0] * 5
        assert normalized_surface_dice(d, 0) == 1

    @stable
    @given(pairs, spacings)
    def test_bounds(self, pair, spacing):
        d = surface_distances(*pair, spacing=spacing)
        height, width = pair[0].shape
        diagonal = math.hypot((height - 1) * spacing[0], (width - 1) * spacing[1])
        assert 0 <= average_symmetric_surface_distance(d) <= hausdorff(d) * (1 + 1e-12)
        assert hausdorff95(d) <= hausdorff(d) <= diagonal * (1 + 1e-12)
        assert 0 <= average_surface_distance(d) <= hausdorff(d) * (1 + 1e-12)
        assert hausdorff95_max(d) <= hausdorff(d)
        assert 0 <= normalized_surface_dice(d, 1) <= normalized_surface_dice(d, 2) <= 1

    @stable
    @given(pairs, st.integers(1, 5))
    def test_background_around_changes_nothing(self, pair, margin):
        # Pixels of background around the frame: border pixels there stay border pixels, and nothing gets nearer.
        wide = [np.pad(mask, margin) for mask in pair]
        np.testing.assert_array_equal(surface_distances(*pair).pooled, surface_distances(*wide).pooled)

    @stable
    @given(pairs, st.floats(0.1, 10))
    def test_distances_scale_with_the_spacing(self, pair, scale):
        d, scaled = surface_distances(*pair), surface_distances(*pair, spacing=(scale, scale))
        np.testing.assert_allclose(scaled.pooled, scale * d.pooled, atol=1e-9)
