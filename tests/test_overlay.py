from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fundus_seg.viz.overlay import STRUCTURE_COLOURS, TRUTH_COLOUR, draw_contours

SIDE = 200
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)
NOTHING = np.zeros((2, SIDE, SIDE), bool)


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.hypot(rows - row, columns - column) < radius


def touched(drawing: np.ndarray) -> np.ndarray:
    return (drawing != GREY).any(axis=2)


def border(mask: np.ndarray) -> np.ndarray:
    """Pixels on either side of the mask's edge."""
    cross = ndimage.generate_binary_structure(2, 1)
    return ndimage.binary_dilation(mask, cross) ^ ndimage.binary_erosion(mask, cross)


def drawn_shapes() -> dict[str, np.ndarray]:
    shapes = {name: np.zeros((SIDE, SIDE), bool) for name in ("pixel", "line", "block", "frame", "full", "holes")}
    shapes["pixel"][70, 80] = True
    shapes["line"][40, 30:90] = True
    shapes["block"][50:120, 60:100] = True
    shapes["frame"][:60, 150:] = True
    shapes["full"][:] = True
    shapes["holes"][20:180, 20:180] = True
    shapes["holes"][60, 60] = False
    shapes["holes"][100:140, 90:150] = False
    shapes["disc"] = disc(97.3, 101.8, 61.4)
    shapes["several"] = disc(50, 50, 20.5) | disc(140, 130, 30.2) | shapes["pixel"]
    return shapes


@pytest.mark.parametrize("name", drawn_shapes())
def test_the_line_covers_the_edge_and_stays_within_a_pixel_of_it(name):
    mask = drawn_shapes()[name]
    lines = touched(draw_contours(GREY, np.stack([mask, NOTHING[1]]), thickness=1))
    # Beyond the frame is background, so that a mask at the frame has an edge there.
    edge = border(np.pad(mask, 3))[3:-3, 3:-3]
    # No pixel of the line further than one from those beside the edge, none of the edge further than one from the line.
    assert not (lines & ~ndimage.binary_dilation(edge, np.ones((3, 3)))).any()
    assert not (edge & ~ndimage.binary_dilation(lines, np.ones((3, 3)))).any()


def test_the_line_of_a_disc_is_smooth_and_in_place():
    row, column, radius = 97.3, 101.8, 80.4
    drawing = draw_contours(np.zeros_like(GREY), np.stack([disc(row, column, radius), NOTHING[1]]), thickness=2)
    columns = np.arange(62, 142)  # the upper sixth of the circle, where a staircase has its longest steps
    ink = drawing[: SIDE // 2, columns, 1].astype(float)
    middle = (ink * np.arange(SIDE // 2)[:, None]).sum(axis=0) / ink.sum(axis=0)
    error = middle - (row - np.sqrt(radius**2 - (columns - column) ** 2))
    assert np.abs(error).max() < 0.5
    assert np.abs(np.diff(error)).max() < 0.2  # the mask's own edge steps by 1


def test_colours_and_order():
    prediction = np.stack([disc(100, 100, 80), disc(100, 100, 40)])
    truth = np.stack([disc(100, 100, 60), disc(100, 100, 40)])
    drawing = draw_contours(GREY, prediction, truth, thickness=2)
    disc_colour, cup_colour = STRUCTURE_COLOURS
    assert tuple(drawing[100, 179]) == disc_colour
    assert tuple(drawing[100, 159]) == TRUTH_COLOUR
    assert tuple(drawing[100, 139]) == cup_colour  # above the truth, which has the same edge
    assert tuple(drawing[100, 100]) == (128, 128, 128)


def test_thickness_is_the_width_of_the_line():
    for thickness in (0.5, 1, 2.5, 6):
        drawing = draw_contours(np.zeros_like(GREY), np.stack([disc(100, 100, 60), NOTHING[1]]), thickness=thickness)
        across = drawing[100, 110:, 1] / 255  # a straight cut through the right side
        assert across.sum() == pytest.approx(thickness, abs=0.3)


@pytest.mark.parametrize(("shape", "thickness"), [((800, 600), 2), ((200, 1600), 4), ((60, 60), 1)])
def test_default_thickness_scales_with_the_longer_side(shape, thickness):
    image, masks = np.zeros((*shape, 3), np.uint8), np.zeros((2, *shape), bool)
    masks[:, 10:-10, 10:-10] = True
    np.testing.assert_array_equal(draw_contours(image, masks), draw_contours(image, masks, thickness=thickness))


def test_empty_masks_draw_nothing():
    result = draw_contours(GREY, NOTHING, NOTHING)
    np.testing.assert_array_equal(result, GREY)
    assert not np.shares_memory(result, GREY)


def test_inputs_are_left_alone():
    image, masks = GREY.copy(), np.stack(2 * [disc(100, 100, 60)])
    image.flags.writeable = masks.flags.writeable = False
    result = draw_contours(image, masks, masks)
    np.testing.assert_array_equal(image, GREY)
    assert result.dtype == np.uint8
    assert result.flags.writeable
    assert touched(result).any()


@pytest.mark.parametrize("image", [GREY[..., 0], GREY[..., :2], GREY.astype(np.float32)])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8, got"):
        draw_contours(image, NOTHING)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"masks must be \(2, 200, 200\) bool, got \(2, 199, 200\)"):
        draw_contours(GREY, NOTHING[:, 1:])
    with pytest.raises(ValueError, match=r"truth must be \(2, 200, 200\) bool, got \(200, 200\)"):
        draw_contours(GREY, NOTHING, NOTHING[0])
    with pytest.raises(ValueError, match=r"masks must be .* bool, got .* uint8"):
        draw_contours(GREY, NOTHING.astype(np.uint8))
    with pytest.raises(ValueError, match="thickness must be above 0"):
        draw_contours(GREY, NOTHING, thickness=0)
