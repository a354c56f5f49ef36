from __future__ import annotations

import pytest

from fundus_seg.data.box import Box
from fundus_seg.data.laterality import eye_of_name, eye_of_side

FIELD = Box(100, 50, 900, 900)
"""A field of view of 45 degrees, in which a disc of 120 pixels across has 7.5 degrees."""


@pytest.mark.parametrize(
    ("name", "eye"),
    [
        *((name, "OD") for name in ("RET002OD", "p12_right", "10_OD_macula", "rightEye", "od-3", "Image_01R", "x_RE")),
        *((name, "OS") for name in ("RET002OS", "p12_LEFT", "left", "Œil gauche №1", "x.os", "Image_01L", "x_LE")),
        *((name, "") for name in ("", "12", "model", "oslo", "bright", "retake", "re_take", "le_12", "L_12", "R2D2")),
        *((name, "") for name in ("od: left", "OD+OS", "copyright")),
    ],
)
def test_names_tell_the_eye_by_whole_words_alone(name, eye):
    assert eye_of_name(name) == eye


@pytest.mark.parametrize(
    ("x", "y", "eye"),
    [
        (550 + 300, 480, "OD"),  # 2.5 diameters nasally of a fovea in the middle
        (550 - 300, 480, "OS"),
        (550, 500, ""),  # aimed at the disc
        (550 + 100, 500, ""),
        (550 + 300, 700, ""),  # aimed above or below
        (550 + 490, 500, ""),  # further away than the fovea is
    ],
)
def test_the_side_of_the_disc_tells_the_eye_of_a_photograph_aimed_at_the_fovea(x, y, eye):
    assert eye_of_side(x, y, 120, FIELD) == eye


def test_a_crop_shows_no_side():
    assert eye_of_side(300, 200, 120, Box(0, 0, 400, 400)) == ""
