from __future__ import annotations

import numpy as np
import pytest

from fundus_seg.data.crop import as_row, crop_at, from_row, whole_frame
from fundus_seg.errors import DataError

FRAME = (50, 40)  # width, height
PIXELS = np.arange(40 * 50).reshape(40, 50).astype(np.uint8)


def masks_of(seed=0):
    """Two blocks of 4x4 squares, True or False by chance: they survive a halving."""
    return np.random.default_rng(seed).random((2, 10, 13)).repeat(4, axis=1).repeat(4, axis=2)[:, :, :50] > 0.5


def test_a_crop_inside_shows_the_pixels_about_its_centre():
    crop = crop_at(FRAME, (20, 10), (8, 6))
    assert (crop.cut(PIXELS, 0, smooth=True) == PIXELS[7:13, 16:24]).all()


def test_a_centre_between_pixels_is_rounded_down():
    assert crop_at(FRAME, (20.5, 10), (8, 6)).left == 16


def test_what_leaves_the_frame_is_filled():
    crop = crop_at(FRAME, (1, 38), (8, 6))
    cut = crop.cut(PIXELS, 255, smooth=True)
    assert (crop.pad_left, crop.pad_top, crop.pad_right, crop.pad_bottom) == (3, 0, 0, 1)
    assert (cut[:5, 3:] == PIXELS[35:, :5]).all()
    assert (cut[:, :3] == 255).all() and (cut[5] == 255).all()


def test_a_crop_beside_the_frame_shows_nothing_of_it():
    for centre in ((-20, 10), (80, 10), (20, -9), (20, 70)):
        crop = crop_at(FRAME, centre, (8, 6))
        assert (crop.cut(PIXELS, 255, smooth=True) == 255).all()
        assert not crop.whole(np.ones((6, 8), bool)).any()


def test_a_view_is_never_left():
    crop = crop_at(FRAME, (22, 20), (10, 10), view=(0, 25))
    assert (crop.cut(PIXELS, 0, smooth=True)[:, 8:] == 0).all()
    assert not crop.whole(np.ones((10, 10), bool))[:, 25:].any()


@pytest.mark.parametrize(
    "arguments",
    [
        {"centre": (20, 10), "size": (8, 6)},
        {"centre": (1, 38), "size": (30, 30)},
        {"centre": (25, 20), "size": (90, 90)},
        {"centre": (25, 20), "size": (50, 40)},
        {"centre": (20, 20), "size": (20, 20), "view": (4, 25)},
        {"centre": (12, 12), "size": (24, 24), "output": (48, 48)},
        {"centre": (12, 12), "size": (25, 25), "output": (60, 60)},
    ],
)
def test_put_back_and_cut_again_is_the_same(arguments):
    crop = crop_at(FRAME, **arguments)
    cut = np.stack([crop.cut(mask, False, smooth=False) for mask in masks_of()])
    row = {key: str(value) for key, value in as_row(crop).items()}  # as a CSV holds it
    whole = whole_frame(cut, row)
    assert whole.shape == (2, 40, 50)
    assert (np.stack([from_row(row).cut(mask, False, smooth=False) for mask in whole]) == cut).all()


def test_a_crop_that_was_made_smaller_is_put_back_at_its_size():
    crop = crop_at(FRAME, (24, 20), (32, 32), output=(8, 8))
    whole = crop.whole(np.ones((8, 8), bool))
    assert whole.sum() == 32 * 32 and whole[4:36, 8:40].all()


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(DataError, match="a mask of 5x4 pixels for a crop of 8x6"):
        crop_at(FRAME, (20, 10), (8, 6)).whole(np.ones((4, 5), bool))


def test_a_row_without_a_crop_is_refused():
    with pytest.raises(DataError, match="without a crop"):
        whole_frame(np.ones((4, 5), bool), {"frame_width": "", "name": "x"})
