from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label

from fundus_seg.inference.postprocess import fill_holes, largest_component
from fundus_seg.metrics import component_count, hole_count, pixels_outside

stable = settings(derandomize=True, deadline=None)
masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8))


def drawn(*lines: str) -> np.ndarray:
    return np.array([[character == "#" for character in line] for line in lines])


@pytest.mark.parametrize(
    ("lines", "components", "holes"),
    [
        (("...", "..."), 0, 0),
        (("###", "###"), 1, 0),
        (("#..", ".#."), 1, 0),  # joined by a corner
        (("#.#", "#.#"), 2, 0),
        (("###", "#.#", "###"), 1, 1),
        ((".#.", "#.#", ".#."), 1, 1),  # closed: the background is 4-connected
        (("###", "#..", "###"), 1, 0),  # open to the frame
        (("#####", "#.#.#", "#####"), 1, 2),
        (("#####", "#...#", "#.#.#", "#...#", "#####"), 2, 1),
    ],
)
def test_drawn_masks(lines, components, holes):
    mask = drawn(*lines)
    for same in (mask, np.pad(mask, 2), mask.T):
        assert (component_count(same), hole_count(same)) == (components, holes)


@stable
@given(masks)
def test_counts_are_those_of_scipy(mask):
    assert component_count(mask) == label(mask, np.ones((3, 3)))[1]
    assert hole_count(mask) == label(~np.pad(mask, 1))[1] - 1


@stable
@given(masks)
def test_post_processing_leaves_nothing_to_count(mask):
    clean = fill_holes(largest_component(mask))
    assert (component_count(clean), hole_count(clean)) == (int(mask.any()), 0)


def test_pixels_of_the_cup_outside_the_disc():
    cup, disc = drawn("##..", "##.."), drawn(".###", ".###")
    assert (pixels_outside(cup, disc), pixels_outside(disc, cup), pixels_outside(disc, disc)) == (2, 4, 0)
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(1, 4\)"):
        pixels_outside(cup, disc[:1])


@pytest.mark.parametrize("count", [component_count, hole_count])
def test_grey_values_are_refused(count):
    with pytest.raises(ValueError, match="boolean"):
        count(np.full((3, 3), 255, np.uint8))
