from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from fundus_seg.inference.postprocess import fill_holes, largest_component, postprocess

stable = settings(derandomize=True, deadline=None)
masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=16))


def drawn(picture: str) -> np.ndarray:
    """`#` is mask, `.` is background, a line a row."""
    return np.array([[pixel == "#" for pixel in row] for row in picture.split()])


class TestLargestComponent:
    def test_keeps_the_one_with_the_most_pixels(self):
        mask = drawn("""
            ##...
            .....
            ..###
        """)
        np.testing.assert_array_equal(largest_component(mask), drawn("..... ..... ..###"))

    def test_diagonal_neighbours_belong_together(self):
        mask = drawn("""
            #....
            .#.##
            ..#..
        """)
        np.testing.assert_array_equal(largest_component(mask), mask)
        apart = drawn("""
            ##...
            .....
            #.##.
            .#...
        """)
        np.testing.assert_array_equal(largest_component(apart), drawn("..... ..... #.##. .#..."))

    def test_of_equal_ones_the_first_by_rows_stays(self):
        # In blocks of 2x2, as OpenCV scans, the left one would come first.
        mask = drawn("""
            ....#
            #...#
            #....
        """)
        np.testing.assert_array_equal(largest_component(mask), drawn("....# ....# ....."))

    @pytest.mark.parametrize("value", [False, True])
    def test_empty_and_full(self, value):
        np.testing.assert_array_equal(largest_component(np.full((3, 4), value)), np.full((3, 4), value))

    @stable
    @given(masks)
    def test_equals_scipy(self, mask):
        labels, count = ndimage.label(mask, np.ones((3, 3)))  # numbered by their first pixel
        areas = np.bincount(labels.ravel(), minlength=2)[1:]
        expected = labels == 1 + areas.argmax() if count else mask
        np.testing.assert_array_equal(largest_component(mask), expected)


class TestFillHoles:
    def test_fills_what_the_frame_cannot_reach(self):
        mask = drawn("""
            .####.
            .#..#.
            .####.
            ......
        """)
        np.testing.assert_array_equal(fill_holes(mask), drawn(".####. .####. .####. ......"))

    def test_a_diagonal_ring_is_closed(self):
        mask = drawn("""
            .#.
            #.#
            .#.
        """)
        np.testing.assert_array_equal(fill_holes(mask), drawn(".#. ### .#."))

    def test_a_bay_open_to_the_frame_is_no_hole(self):
        mask = drawn("""
            ###
            #..
            ###
        """)
        np.testing.assert_array_equal(fill_holes(mask), mask)

    @stable
    @given(masks)
    def test_equals_scipy(self, mask):
        np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


class TestPostprocess:
    def test_threshold_is_strict_and_either_step_can_stay_off(self):
        probabilities = np.array([[[0.75, 0.76, 1.0]], [[0.5, 0.74, 0.0]]], np.float32)
        np.testing.assert_array_equal(postprocess(probabilities), [[[0, 1, 1]], [[0, 0, 0]]])
        np.testing.assert_array_equal(postprocess(probabilities, threshold=0.5), [[[1, 1, 1]], [[0, 1, 0]]])

    def test_structures_are_cleaned_apart(self):
        disc = drawn("""
            ###..
            #.#..
            ###.#
        """)
        cup = drawn("""
            .....
            .#.##
            .....
        """)
        result = postprocess(np.stack([disc, cup]).astype(float))
        assert result.dtype == bool
        np.testing.assert_array_equal(result[0], drawn("###.. ###.. ###.."))
        np.testing.assert_array_equal(result[1], drawn("..... ...## ....."))

    def test_steps_can_be_left_out(self):
        disc = drawn("""
            ###..
            #.#..
            ###.#
        """)
        probabilities = np.stack([disc, disc]).astype(float)
        raw = postprocess(probabilities, largest=False, fill=False)
        np.testing.assert_array_equal(raw, np.stack([disc, disc]))
        filled = postprocess(probabilities, largest=False)
        np.testing.assert_array_equal(filled[1], drawn("###.. ###.. ###.#"))
        ring = postprocess(probabilities, fill=False)
        np.testing.assert_array_equal(ring[1], drawn("###.. #.#.. ###.."))

    def test_components_are_compared_before_holes_are_filled(self):
        probabilities = np.stack(
            2
            * [
                drawn("""
            ###.###
            #.#.###
            ###.###
        """)
            ]
        ).astype(float)
        # The ring would be as large as the block, and first, once it is filled.
        np.testing.assert_array_equal(postprocess(probabilities)[0], drawn("....### ....### ....###"))

    def test_an_island_in_a_hole_is_gone_and_the_hole_filled(self):
        disc = drawn("""
            #####
            #...#
            #.#.#
            #...#
            #####
        """)
        assert postprocess(np.stack([disc, disc]).astype(float)).all()

    def test_the_input_is_left_alone(self):
        probabilities = np.random.default_rng(0).random((2, 20, 20))
        before = probabilities.copy()
        probabilities.flags.writeable = False
        postprocess(probabilities)
        np.testing.assert_array_equal(probabilities, before)

    @pytest.mark.parametrize("shape", [(20, 20), (3, 20, 20), (1, 2, 20, 20)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"\(2, H, W\), got shape"):
            postprocess(np.zeros(shape))


@pytest.mark.parametrize("step", [largest_component, fill_holes])
def test_steps_refuse_probabilities(step):
    with pytest.raises(TypeError, match="safe"):
        step(np.full((3, 3), 0.5))
