from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fundus_seg.metrics.photograph import lab
from fundus_seg.viz.contours import STRUCTURE_COLOURS, TRUTH_COLOUR, draw_contours
from fundus_seg.viz.overlay import draw_overlay, save_picture
from fundus_seg.viz.style import PALETTE

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
    drawing = draw_contours(GREY, prediction, truth, thickness=4)
    disc_colour, cup_colour = STRUCTURE_COLOURS
    assert share(drawing, 100, 80, disc_colour) == 1
    assert 0.3 < share(drawing, 100, 60, TRUTH_COLOUR) < 0.7  # in dashes
    # The cup and its truth have the same edge: both show, in turn.
    assert 0.2 < share(drawing, 100, 40, TRUTH_COLOUR) < 0.7
    assert 0.2 < share(drawing, 100, 40, cup_colour) < 0.7
    assert tuple(drawing[100, 100]) == (128, 128, 128)


def share(drawing: np.ndarray, centre: int, radius: int, colour: tuple[int, int, int]) -> float:
    """Share of a circle that has nearly this colour."""
    angles = np.linspace(0, 2 * np.pi, 720)
    rows, columns = (np.rint(centre + radius * f(angles)).astype(int) for f in (np.sin, np.cos))
    return float((np.abs(drawing[rows, columns].astype(int) - colour) < 60).all(axis=1).mean())


def test_dashes_go_round_without_a_seam():
    truth = np.stack([disc(100, 100, 70), NOTHING[1]])
    drawing = draw_contours(GREY, NOTHING, truth, thickness=3)
    angles = np.linspace(0, 2 * np.pi, 1440, endpoint=False)
    rows, columns = (np.rint(100 + 70 * f(angles)).astype(int) for f in (np.sin, np.cos))
    white = drawing[rows, columns].min(axis=1) > 190
    starts = np.flatnonzero(white & ~np.roll(white, 1))
    dashes = np.diff(starts, append=starts[0] + len(angles))
    assert len(starts) == pytest.approx(2 * np.pi * 70 / (8 * 3), rel=0.15)
    assert dashes.max() < 1.6 * dashes.min()


@pytest.mark.parametrize("background", [(20, 8, 4), (200, 90, 40), (250, 230, 170), (255, 255, 255)])
def test_every_line_stands_out_from_dark_red_and_bright_ground(background):
    image = np.full((SIDE, SIDE, 3), background, np.uint8)
    pair = np.stack([disc(100, 100, 80), disc(100, 100, 40)])
    for masks, truth in ((pair, None), (NOTHING, pair)):
        drawing = draw_contours(image, masks, truth, thickness=4)
        for radius in (80, 40):
            across = lightness(drawing[100 + radius - 8 : 100 + radius + 8, 90:110])
            assert across.max() - across.min() > 30  # in L*; the line or its halo
    dark = draw_contours(image, pair, thickness=4)
    assert lightness(dark[172:188, 100:101]).min() < max(30, lightness(image[:1, :1]).max() / 2)


def lightness(pixels: np.ndarray) -> np.ndarray:
    return lab(pixels)[..., 0]


@pytest.mark.parametrize("side", [1, 2, 8, 33])
def test_a_tiny_photograph_is_enlarged_and_its_caption_fits(side):
    image, masks = np.full((side, side, 3), 90, np.uint8), np.ones((2, side, side), bool)
    picture = draw_overlay(image, masks, name="eye", texts=["vCDR 0.55", "not framed as in training"])
    assert picture.shape[1] >= min(480, max(320, 60 * side))
    assert picture.shape[0] - min(480, 60 * side) < 120  # two rows of caption at most


def test_thickness_is_the_width_of_the_line():
    for thickness in (0.5, 1, 2.5, 6):
        drawing = draw_contours(np.zeros_like(GREY), np.stack([disc(100, 100, 60), NOTHING[1]]), thickness=thickness)
        across = drawing[100, 110:, 1] / STRUCTURE_COLOURS[0][1]  # a straight cut through the right side
        assert across.sum() == pytest.approx(thickness, abs=0.3)


@pytest.mark.parametrize(("shape", "thickness"), [((720, 600), 3), ((200, 1680), 7), ((60, 60), 1.5)])
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


class TestPicture:
    """The photograph with strips above and below."""

    PAIR = np.stack([disc(100, 100, 80), disc(100, 100, 40)])

    def test_the_photograph_is_whole_between_the_strips(self):
        image = np.random.default_rng(0).integers(0, 256, (500, 600, 3), dtype=np.uint8)
        empty = np.zeros((2, 500, 600), bool)
        picture = draw_overlay(image, empty, name="eye", texts=["vCDR 0.5"])
        above = next(row for row in range(len(picture)) if (picture[row : row + 500] == image).all())
        assert 0 < above < 60
        assert picture.shape[1] == 600

    def test_a_small_photograph_is_enlarged_and_its_lines_stay_in_place(self):
        image, masks = np.zeros((64, 64, 3), np.uint8), np.zeros((2, 64, 64), bool)
        masks[0, 16:48, 16:48] = True
        picture = draw_overlay(image, masks, name="eye")
        assert picture.shape[1] == 512
        top = (picture.shape[0] - 512) // 2
        lines = np.flatnonzero((picture[top + 250 : top + 260] == STRUCTURE_COLOURS[0]).all(axis=2).any(axis=0))
        assert lines.min() == pytest.approx(16 * 8, abs=3)
        assert lines.max() == pytest.approx(48 * 8, abs=3)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 3), (64, 64), (400, 600), (1100, 900)])
    def test_any_frame_and_any_name(self, shape):
        masks = np.zeros((2, *shape), bool)
        masks[0, : shape[0] // 2 + 1] = True
        names = ("eye", "a" * 300, "\u773c\u20ac\x1b[31m\udce9\n", "", " ")
        for name in names:
            picture = draw_overlay(
                np.zeros((*shape, 3), np.uint8), masks, masks, name=name, texts=["Dice disc 91.2"] * 3
            )
            assert picture.dtype == np.uint8
            assert picture.shape[1] >= max(320, shape[1])

    def test_what_is_said_changes_the_caption_alone(self):
        image = np.full((500, 500, 3), 90, np.uint8)
        masks = np.zeros((2, 500, 500), bool)
        one, two = (draw_overlay(image, masks, name="eye", texts=[text]) for text in ("vCDR 0.5", "vCDR 0.7"))
        rows = np.flatnonzero((one != two).any(axis=(1, 2)))
        assert 0 < rows.min() <= rows.max() < 40

    def test_the_legend_names_the_truth_where_there_is_one(self):
        without, with_truth = (draw_overlay(GREY, NOTHING, truth, name="eye") for truth in (None, NOTHING))
        assert (without[-20:] != with_truth[-20:]).any()
        assert (without[:20] == with_truth[:20]).all()

    def test_jpeg_is_close_and_png_exact(self, tmp_path):
        picture = draw_overlay(
            np.full((500, 500, 3), (200, 90, 40), np.uint8), np.zeros((2, 500, 500), bool), name="eye"
        )
        save_picture(picture, tmp_path / "a.png", "png")
        save_picture(picture, tmp_path / "a.jpg", "jpeg")
        np.testing.assert_array_equal(Image.open(tmp_path / "a.png"), picture)
        with Image.open(tmp_path / "a.jpg") as image:
            assert image.format == "JPEG"
            assert np.abs(np.asarray(image).astype(int) - picture).mean() < 2

    def test_the_colours_are_those_of_the_plots(self):
        assert {"#{:02X}{:02X}{:02X}".format(*colour) for colour in STRUCTURE_COLOURS} <= set(PALETTE)
