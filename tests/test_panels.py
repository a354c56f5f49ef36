from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fundus_seg.viz import Panel, draw_overlay, draw_panels, encode_picture
from fundus_seg.viz.contours import STRUCTURE_COLOURS
from fundus_seg.viz.zoom import Window, window_around


def masks_at(shape: tuple[int, int], row: int, column: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - row, columns - column)
    return np.stack([distance < radius, distance < radius / 2])


def has_blue(picture: np.ndarray) -> bool:
    """Whether there is the line of a predicted disc, on a grey photograph."""
    red, _, blue = np.moveaxis(picture.astype(int), 2, 0)
    return bool((blue - red > 60).any())


class TestWindow:
    def test_it_is_a_square_about_what_is_drawn(self):
        window = window_around([masks_at((400, 600), 200, 300, 50), np.zeros((2, 400, 600), bool)])
        assert window.side == pytest.approx(1.4 * 99, abs=3)
        assert window.top + window.side / 2 == pytest.approx(200, abs=1)
        assert window.left + window.side / 2 == pytest.approx(300, abs=1)

    @pytest.mark.parametrize(("row", "column"), [(5, 300), (395, 598), (200, 0)])
    def test_it_lies_in_the_photograph_and_holds_the_masks(self, row, column):
        masks = masks_at((400, 600), row, column, 50)
        window = window_around([masks])
        assert window.cut(masks).shape == (2, window.side, window.side)
        assert window.cut(masks).sum() == masks.sum()

    def test_masks_of_a_whole_crop_leave_it_no_larger_than_the_crop(self):
        assert window_around([np.ones((2, 90, 120), bool)]) == Window(0, 15, 90)

    @pytest.mark.parametrize("masks", [[], [np.zeros((2, 9, 9), bool)]])
    def test_there_is_none_about_nothing(self, masks):
        assert window_around(masks) is None


class TestOverlay:
    IMAGE = np.full((600, 900, 3), 90, np.uint8)

    def test_a_small_disc_stands_enlarged_beside_the_photograph(self):
        picture = draw_overlay(self.IMAGE, masks_at((600, 900), 300, 200, 30), name="eye")
        assert picture.shape[1] == 900 + 6 + 600
        across = (np.abs(picture[:, 906:].astype(int) - STRUCTURE_COLOURS[0]) < 12).all(axis=2).any(axis=0)
        assert np.ptp(np.flatnonzero(across)) == pytest.approx(600 / 1.4, rel=0.05)

    def test_a_disc_that_fills_the_photograph_does_not(self):
        assert draw_overlay(self.IMAGE, masks_at((600, 900), 300, 450, 200), name="eye").shape[1] == 900

    def test_lines_on_a_small_disc_leave_it_to_be_seen(self):
        picture = draw_overlay(self.IMAGE, masks_at((600, 900), 300, 200, 20), name="eye")[:, :900]
        assert (picture == 90).all(axis=2)[:, 195:205].sum() > 5500  # most of the disc's 40 rows there too


class TestPanels:
    IMAGE = np.random.default_rng(0).integers(60, 90, (300, 400, 1), dtype=np.uint8).repeat(3, axis=2)
    TRUTH = masks_at((300, 400), 150, 200, 60)

    def panels(self):
        return [
            Panel("photograph", zoomed=False),
            Panel("truth", truth=self.TRUTH),
            Panel("tvconv", self.TRUTH, text="DSC 100 / 100"),
            Panel("conv", self.TRUTH, self.TRUTH),
        ]

    def test_they_stand_in_rows_of_three(self):
        picture = draw_panels(self.IMAGE, self.panels(), name="eye", side=160)
        assert picture.shape[1] == 3 * 160 + 2 * 6
        assert picture.shape[0] > 2 * 160
        assert draw_panels(self.IMAGE, self.panels(), name="eye", side=160, columns=4).shape[1] == 4 * 160 + 3 * 6

    def test_each_shows_what_it_is_given(self):
        picture = draw_panels(self.IMAGE, self.panels()[:3], name="eye", side=160)[:-40]  # without the legend
        plain, truth, masks = (picture[60:, first : first + 160] for first in (0, 166, 332))
        assert [has_blue(panel) for panel in (plain, truth, masks)] == [False, False, True]
        assert [bool((panel > 160).all(axis=2).any()) for panel in (truth, masks)] == [True, False]

    def test_all_zoomed_ones_show_the_same_square_about_the_truth(self):
        far = masks_at((300, 400), 60, 60, 20)
        plain = draw_panels(self.IMAGE, [Panel("truth", truth=self.TRUTH), Panel("disc")], name="eye", side=160)
        with_far = draw_panels(
            self.IMAGE, [Panel("truth", truth=self.TRUTH), Panel("disc"), Panel("far", far)], name="eye", side=160
        )
        np.testing.assert_array_equal(plain[30:200, 166:326], with_far[30:200, 166:326])

    def test_photographs_of_any_shape_and_without_masks(self):
        for shape in ((1, 1), (40, 300), (500, 70)):
            picture = draw_panels(np.zeros((*shape, 3), np.uint8), [Panel("a"), Panel("b", zoomed=False)], name="eye")
            assert picture.shape[1] == 2 * 320 + 6

    def test_what_cannot_be_drawn_is_refused(self):
        with pytest.raises(ValueError, match="there is no panel to draw"):
            draw_panels(self.IMAGE, [], name="eye")
        with pytest.raises(ValueError, match=r"masks must be \(2, 300, 400\) bool"):
            draw_panels(self.IMAGE, [Panel("conv", self.TRUTH[:, 1:])], name="eye")

    @pytest.mark.parametrize("form", ["jpeg", "png"])
    def test_a_notebook_gets_the_bytes_of_a_file(self, form):
        with Image.open(io.BytesIO(encode_picture(self.IMAGE, form))) as picture:
            assert (picture.format, picture.size) == (form.upper(), (400, 300))
