from __future__ import annotations

import numpy as np
import pytest

from fundus_seg.data.box import Box
from fundus_seg.data.framing import Framing
from fundus_seg.errors import DataError, UsageError
from fundus_seg.inference.localise import FoundDisc
from fundus_seg.inference.roi import (
    NO_EYE,
    NOT_LISTED,
    ONE_COLOUR,
    OUTSIDE,
    TOO_SMALL,
    TWO_DISCS,
    UNCONFIRMED,
    Region,
    Roi,
)

FRAMING = Framing(0.45, 0.8)  # its middle is 0.6
PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)


def region(text, disc=None, *, name="a", framing=FRAMING, image=PHOTOGRAPH):
    return Roi.parse(text).region(name, image, framing, lambda _: disc)


class TestAuto:
    def test_the_crop_frames_the_disc_as_in_training(self):
        found = region("auto", FoundDisc(x=300, y=200, diameter=90, probability=1))
        assert found == Region("auto", Box(225, 125, 150, 150))

    def test_a_photograph_framed_as_in_training_is_left_alone(self):
        crop = PHOTOGRAPH[:200, :180]
        for diameter in (70, 120, 185):  # 0.37 to 0.97 of the side: the limits of the framing, with their tolerance
            found = region("auto", FoundDisc(90, 100, diameter, 1), image=crop)
            assert found == Region("full", Box.whole(crop.shape))

    def test_a_photograph_nearer_than_any_crop_is_left_alone(self):
        assert region("auto", FoundDisc(300, 200, 500, 1)).how == "full"

    def test_where_a_crop_may_have_been_measured_badly_the_network_s_own_disc_decides(self):
        whole, crop = Box.whole(PHOTOGRAPH.shape), Box(172, 72, 256, 256)
        found = region("auto", FoundDisc(300, 200, 153.6, 1))  # 0.31 of the side
        assert found == Region("full", whole, otherwise=crop)
        disc = np.zeros((400, 600), bool)
        assert found.confirmed(disc, FRAMING, disc) == Region("auto", crop)
        disc[:150, :150] = True
        assert found.confirmed(disc, FRAMING, disc) == Region("auto", crop)
        disc[:250, :250] = True
        assert found.confirmed(disc, FRAMING, disc) is found

    def test_a_photograph_that_shows_the_whole_field_of_view_is_no_crop(self):
        field = np.zeros((400, 600, 3), np.uint8)
        rows, columns = np.mgrid[:400, :600]
        field[np.hypot(rows - 200, columns - 300) < 280] = 150
        field[:, ::7] //= 2
        for diameter in (153.6, 300):  # which a halo has made too large
            assert region("auto", FoundDisc(300, 200, diameter, 1), image=field).how == "auto"
        assert region("auto", NO_EYE, image=field) == Region("none", None, NO_EYE)
        assert region("auto", FoundDisc(300, 200, 90, 1), image=field, framing=Framing(0.1, 0.3)).how == "full"

    def test_a_disc_of_few_pixels_has_no_region(self):
        assert region("auto", FoundDisc(10, 10, 9, 1)) == Region("none", None, TOO_SMALL)

    def test_two_discs_have_no_region(self):
        assert region("auto", TWO_DISCS) == Region("none", None, TWO_DISCS)

    def test_a_picture_of_one_colour_has_no_region(self):
        assert region("auto", image=0 * PHOTOGRAPH) == Region("none", None, ONE_COLOUR)

    def test_where_no_disc_is_found_the_network_s_own_decides(self):
        found = region("auto", NO_EYE)
        assert found == Region("full", Box.whole(PHOTOGRAPH.shape), UNCONFIRMED)
        disc = np.zeros((400, 600), bool)
        assert found.confirmed(disc, FRAMING, disc) == Region("none", None, NO_EYE)
        disc[:60, :60] = True
        assert found.confirmed(disc, FRAMING, disc) == Region("none", None, NO_EYE)
        disc[:300, :300] = True
        assert found.confirmed(disc, FRAMING, disc) is found
        raw = disc.copy()
        raw[::20] = False  # stripes are no disc
        assert found.confirmed(disc, FRAMING, raw) == Region("none", None, NO_EYE)

    def test_without_a_framing_photographs_are_taken_whole(self):
        assert region("auto", NO_EYE, framing=None).how == "full"


class TestGiven:
    def test_full_never_looks(self):
        assert region("full", NO_EYE) == Region("full", Box(0, 0, 600, 400))

    def test_a_box(self):
        assert region("10,20,30,40") == Region("given", Box(10, 20, 30, 40))
        assert region(" -10, -20, 30, 40") == Region("given", Box(-10, -20, 30, 40))

    def test_a_box_beside_the_photograph_has_no_region(self):
        assert region("600,0,30,40") == Region("none", None, OUTSIDE)

    @pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "1,2,0,4", "1.5,2,3,4", "1,2,3,-4", "1,2,3,9999999", "5"])
    def test_no_box(self, text):
        with pytest.raises(UsageError, match="is not a box"):
            Roi.parse(text)

    def test_a_box_has_no_more_pixels_than_a_photograph_may_have(self):
        assert Roi.parse("0,0,10000,10000").box == Box(0, 0, 10_000, 10_000)
        with pytest.raises(UsageError, match=r"'0,0,10000,10001' has more than 100 million pixels: give a box"):
            Roi.parse("0,0,10000,10001")

    def test_other_words_are_refused(self):
        with pytest.raises(UsageError, match=r"--roi Full: write auto, full, X,Y,W,H"):
            Roi.parse("Full")


class TestTable:
    @pytest.mark.parametrize(
        "text",
        [
            "name,x,y,w,h\na,1,2,3,4\n",
            "\ufeffFile;X;Y;Width;Height\r\nfolder/a.JPG; 1; 2; 3; 4\r\n\r\n",
            "photograph,width,height,crop_x,crop_y,crop_width,crop_height\nC:\\eyes\\a.png,600,400,1,2,3,4\n",
        ],
    )
    def test_boxes_by_name(self, tmp_path, text):
        (tmp_path / "boxes.csv").write_bytes(text.encode("utf8"))
        assert region(str(tmp_path / "boxes.csv")) == Region("given", Box(1, 2, 3, 4))
        assert region(str(tmp_path / "boxes.csv"), name="b") == Region("none", None, NOT_LISTED)

    def test_a_name_with_a_point_keeps_it(self, tmp_path):
        (tmp_path / "boxes.csv").write_text("name,x,y,w,h\neye.2,1,2,3,4\n")
        assert region(str(tmp_path / "boxes.csv"), name="eye.2").how == "given"

    def test_a_line_without_a_box_is_of_a_photograph_without_one(self, tmp_path):
        (tmp_path / "boxes.csv").write_text("name,x,y,w,h\na,,,,\n")
        assert region(str(tmp_path / "boxes.csv")).reason == NOT_LISTED

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "its columns are none; expected name,x,y,w,h"),
            ("name,x,y\n", "its columns are name, x, y"),
            ("name,x,y,w,h\na,1,2,3,4\na,1,2,3,5\n", "boxes.csv:3: a second box for a"),
            ("name,x,y,w,h\na,1,2,3\n", "boxes.csv:2: '1,2,3,' is not a box"),
            ("name,x,y,w,h\na,1,2,3,b\n", "boxes.csv:2: '1,2,3,b' is not a box"),
        ],
    )
    def test_faults_are_named_with_their_line(self, tmp_path, text, message):
        (tmp_path / "boxes.csv").write_text(text)
        with pytest.raises(DataError) as caught:
            Roi.parse(str(tmp_path / "boxes.csv"))
        assert message in str(caught.value)

    def test_what_cannot_be_read(self, tmp_path):
        with pytest.raises(DataError, match=r"nowhere.csv: cannot be read"):
            Roi.parse(str(tmp_path / "nowhere.csv"))
        (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(DataError, match="not a text in UTF-8"):
            Roi.parse(str(tmp_path / "bytes.csv"))
