from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fundus_seg.data.coding import DOFE, Coding, decode, grey, merged
from fundus_seg.data.io import read_mask
from fundus_seg.errors import DataError

DISC = np.zeros((20, 20), dtype=bool)
DISC[4:16, 4:16] = True
CUP = np.zeros((20, 20), dtype=bool)
CUP[8:12, 8:12] = True
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def painted(coding):
    """The mask of DISC and CUP in the colours of a coding, (20, 20, 3)."""
    colours = np.array([coding.background, coding.rim, coding.cup], dtype=np.uint8)
    return colours[DISC.astype(int) + CUP]


@pytest.mark.parametrize(
    "coding",
    [
        DOFE,
        Coding(background=grey(0), rim=grey(1), cup=grey(2)),
        Coding(background=grey(0), rim=grey(255), cup=grey(128)),
        Coding(background=grey(0), rim=RED, cup=GREEN),
        Coding(background=BLUE, rim=grey(255), cup=RED),
    ],
    ids=str,
)
def test_masks_in_any_three_colours(coding):
    np.testing.assert_array_equal(decode(painted(coding), coding, lossy=False), [DISC, CUP])


def test_tolerance_ends_where_the_next_colour_begins():
    """0, 1 and 2 are 1 apart: a grey of 3 is not a cup that came out 1 too bright."""
    coding = Coding(background=grey(0), rim=grey(1), cup=grey(2))
    with pytest.raises(DataError, match=r"^greys \[3\] on 4\.0 % of its pixels are not of the coding \(cup 2, rim 1"):
        decode(np.where(painted(coding) == 2, 3, painted(coding)).astype(np.uint8), coding, lossy=False)


def test_stray_pixels_take_the_nearest_colour():
    coding = Coding(background=grey(0), rim=RED, cup=GREEN)
    pixels = painted(coding)
    pixels[DISC & ~CUP] = (248, 7, 8)
    pixels[9, 9] = (90, 160, 90)  # one of 400, within the half percent
    np.testing.assert_array_equal(decode(pixels, coding, lossy=False), [DISC, CUP])
    pixels[:4] = BLUE
    with pytest.raises(
        DataError, match=r"^colours \[#0000ff, #5aa05a\] on 20\.2 % .* \(cup #00ff00, rim #ff0000, back"
    ):
        decode(pixels, coding, lossy=False)


def test_a_jpeg_may_stray_further(tmp_path):
    large = np.kron(painted(DOFE), np.ones((8, 8, 1), dtype=np.uint8))
    large[:2, :64] = 190  # 128 of 25,600 pixels are half a percent, 256 one
    large[2:4, :64] = 190
    with pytest.raises(DataError, match=r"greys \[190\] on 1\.0 %"):
        decode(large, DOFE, lossy=False)
    assert decode(large, DOFE, lossy=True).shape == (2, 160, 160)
    Image.fromarray(np.kron(painted(DOFE), np.ones((8, 8, 1), dtype=np.uint8))).save(tmp_path / "m.jpg", quality=95)
    disc, cup = read_mask(tmp_path / "m.jpg")
    np.testing.assert_array_equal([disc[4::8, 4::8], cup[4::8, 4::8]], [DISC, CUP])


def test_annotators_merge_by_pixel_and_keep_the_cup_inside():
    votes = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    assert merged(votes, "majority").tolist() == [True, True, False, False]
    assert merged(votes, "union").tolist() == [True, True, True, False]
    assert merged(votes, "intersection").tolist() == [True, False, False, False]
    assert merged(votes[:2], "majority").tolist() == [True, True, False, False], "of two, both"
    rng = np.random.default_rng(0)
    discs = rng.random((3, 50)) < 0.6
    both = np.stack([discs, discs & (rng.random((3, 50)) < 0.6)], axis=1)
    for merge in ("majority", "union", "intersection"):
        disc, cup = merged(both, merge)
        assert (cup <= disc).all()
