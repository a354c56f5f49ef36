"""The measures in a row, on drawn ellipses whose values stand in the tests, and the status that follows."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from fundus_seg.data.box import Box
from fundus_seg.data.dicom import Header
from fundus_seg.data.framing import Framing
from fundus_seg.errors import Problem
from fundus_seg.inference.case_columns import COLUMNS
from fundus_seg.inference.case_rows import row_of, unreadable_row
from fundus_seg.inference.case_warnings import WARNINGS
from fundus_seg.inference.roi import NO_EYE, Region

SIDE = 200
EYE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def ellipse(x, y, width, height, shape=(SIDE, SIDE)):
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.hypot((columns - x) / width, (rows - y) / height) < 0.5


def row(disc, cup, *, image=EYE, name="a.png", box=None, **options):
    region = Region("full", box or Box.whole(image.shape))
    told = {"framing": None, "phantom": False, "inputs": "0" * 16, "region": region}
    return row_of(Path(name), image, np.stack([disc, cup]), None, **told | options)


class TestMeasures:
    def test_ratios_place_and_rim_of_upright_ellipses(self):
        """A disc of 80 x 100 pixels, a cup of 40 x 60 in its middle, 10 pixels higher."""
        measured = row(ellipse(100, 100, 80, 100), ellipse(100, 90, 40, 60), name="x_OD.png")
        place = [measured[name] for name in ("disc_x", "disc_y", "disc_width", "disc_height")]
        assert place == [100, 100, 80, 100]
        assert measured["vertical_cdr"] == 0.6
        assert measured["horizontal_cdr"] == 0.5
        assert measured["area_cdr"] == pytest.approx(40 * 60 / (80 * 100), rel=0.01)
        # Above, 50 - 40 pixels of rim; below, 50 - 20; at the sides, 40 - 20 * sqrt(1 - (10 / 30) ** 2).
        assert measured["rim_12"] == pytest.approx(10, abs=0.7)
        assert measured["rim_6"] == pytest.approx(30, abs=0.7)
        aside = 40 - 20 * math.sqrt(1 - (10 / 30) ** 2)
        assert measured["rim_3"] == pytest.approx(aside, abs=0.7)
        assert measured["rim_9"] == pytest.approx(measured["rim_3"], abs=0.3)
        assert (measured["isnt"], measured["isnt_broken"]) == ("no", "superior<nasal")

    @pytest.mark.parametrize(
        ("name", "shift", "isnt", "broken"),
        [
            ("x_OD.png", -3, "yes", ""),
            ("x_OS.png", -3, "no", "nasal<temporal"),
            ("x.png", -3, "unknown", ""),
            ("x_OS.png", 3, "yes", ""),
        ],
    )
    def test_the_isnt_rule_needs_the_eye(self, name, shift, isnt, broken):
        """Below, 18 pixels of rim; above, 14; and a cup that is shifted towards the temporal side."""
        measured = row(ellipse(100, 100, 64, 80), ellipse(100 + shift, 98, 50, 48), name=name)
        assert (measured["isnt"], measured["isnt_broken"]) == (isnt, broken)

    def test_a_rule_that_is_broken_whatever_the_eye_is_broken(self):
        measured = row(ellipse(100, 100, 80, 80), ellipse(100, 110, 40, 40))
        assert (measured["eye"], measured["isnt"], measured["isnt_broken"]) == ("unknown", "no", "inferior<superior")

    def test_millimetres_are_there_where_the_header_has_the_size_of_a_pixel(self):
        disc, cup = ellipse(100, 100, 80, 100), ellipse(100, 100, 40, 60)
        header = Header(SIDE, SIDE, "OS", (0.02, 0.01), "", "")
        measured = row(disc, cup, header=header, name="right.dcm")
        assert (measured["disc_height_mm"], measured["disc_width_mm"]) == (2.0, 0.8)
        assert measured["disc_mm2"] == pytest.approx(math.pi / 4 * 2.0 * 0.8, rel=0.01)
        assert measured["cup_mm2"] == pytest.approx(math.pi / 4 * 1.2 * 0.4, rel=0.01)
        assert (measured["eye"], measured["eye_from"]) == ("OS", "header")  # which the name contradicts
        assert math.isnan(row(disc, cup)["disc_mm2"])

    def test_the_side_of_the_disc_tells_the_eye_of_a_whole_photograph(self):
        image = np.zeros((500, 600, 3), np.uint8)
        image[ellipse(300, 250, 480, 480, (500, 600))] = (150, 80, 40)
        disc, cup = ellipse(300 + 150, 240, 60, 60, (500, 600)), ellipse(300 + 150, 240, 30, 30, (500, 600))
        measured = row(disc, cup, image=image)
        assert (measured["eye"], measured["eye_from"], measured["warning"]) == ("OD", "disc", "")
        measured = row(disc, cup, image=image, name="x_left.png")
        assert (measured["eye"], measured["eye_from"], measured["warning"]) == ("OS", "name", "eye_contradicted")

    def test_every_column_is_there_and_of_its_kind(self):
        measured = row(ellipse(100, 100, 80, 100), ellipse(100, 90, 40, 60))
        assert list(measured) == [column.name for column in COLUMNS]
        for column in COLUMNS:
            assert isinstance(measured[column.name], str) == (column.kind == "text"), column.name


def test_the_guide_tells_every_column_and_every_warning():
    guide = (Path(__file__).parents[1] / "docs/guide.md").read_text("utf8")
    named = set(re.findall(r"`(\w+)`", guide))
    hours = {f"rim_{hour}" for hour in range(2, 11)}  # which stand there as `rim_1` ... `rim_11`
    assert {*(column.name for column in COLUMNS), *WARNINGS} - named <= hours


class TestStatus:
    DISC, CUP = ellipse(100, 100, 80, 80), ellipse(100, 100, 40, 40)

    def test_nothing_warns(self):
        measured = row(self.DISC, self.CUP, framing=Framing(0.3, 0.5))
        assert (measured["status"], measured["reason"], measured["warning"]) == ("ok", "", "")

    @pytest.mark.parametrize(
        ("fault", "warning"),
        [
            ("parts", "disc_in_parts"),
            ("holes", "cup_with_holes"),
            ("dot", ""),
            ("edge", "disc_at_edge"),
            ("full cup", "unusual_vcdr"),
            ("no cup", "unusual_vcdr"),
        ],
    )
    def test_faults_before_post_processing_are_named(self, fault, warning):
        disc, cup, raw = self.DISC, self.CUP, np.stack([self.DISC, self.CUP])
        raw[0, 5:15, 5:15] = fault == "parts"
        raw[0, 5, 5] |= fault == "dot"
        raw[1, 98:102, 96:104] &= fault != "holes"
        if fault == "edge":
            disc, cup, raw = ellipse(30, 100, 80, 80), ellipse(30, 100, 40, 40), None
        elif "cup" in fault:
            cup, raw = disc & (fault == "full cup"), None
        measured = row(disc, cup, raw=raw)
        assert measured["warning"] == warning
        assert measured["status"] == ("check" if warning else "ok")
        assert measured["reason"] == (WARNINGS[warning].words if warning else "")
        changed = {"parts": (100, 0), "holes": (0, 32), "dot": (1, 0)}.get(fault, (0, 0))
        assert (measured["disc_pixels_changed"], measured["cup_pixels_changed"]) == changed

    def test_a_disc_that_reaches_the_edge_of_the_crop_is_told(self):
        measured = row(self.DISC, self.CUP, box=Box(60, 50, 100, 100))
        assert measured["warning"] == "disc_at_edge"
        assert row(self.DISC, self.CUP, box=Box(59, 50, 100, 100))["warning"] == ""

    def test_what_has_no_mask_or_no_disc_is_declined(self):
        measured = row(self.DISC & False, self.CUP & False)
        assert (measured["status"], measured["reason"]) == ("declined", "no disc found")
        region = Region("none", None, NO_EYE)
        measured = row_of(Path("a"), EYE, None, None, region=region, framing=None, phantom=False, inputs=None)
        assert (measured["status"], measured["reason"]) == ("declined", "no disc found in the photograph")

    def test_what_cannot_be_read_is_declined_with_its_own_reason(self, tmp_path):
        measured = unreadable_row(Path("a_OD.png"), [Problem("damaged; export it again", "a_OD.png")], None)
        assert list(measured) == [column.name for column in COLUMNS]
        assert (measured["status"], measured["warning"], measured["roi"]) == ("declined", "unreadable", "none")
        assert measured["reason"] == "damaged; export it again"
        assert measured["eye"] == "OD"
