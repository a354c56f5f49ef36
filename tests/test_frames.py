from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from fundus_seg.builtins import BACKGROUND, CUP, RIM
from fundus_seg.data.box import Box
from fundus_seg.data.field import field_box
from fundus_seg.data.layout import open_root
from fundus_seg.errors import UsageError
from fundus_seg.phantom.frames import FRAME_CAMERAS, draw_frame
from fundus_seg.phantom.make import PHANTOM_MARKER, make_phantom

MOST = 200


@pytest.fixture(scope="module", params=list(FRAME_CAMERAS))
def frames(request):
    return [draw_frame(request.param, index, seed=1, most=MOST) for index in range(4)]


class TestDrawing:
    def test_a_frame_is_a_photograph_with_its_mask(self, frames):
        for image, mask in frames:
            assert image.shape == (*mask.shape, 3)
            assert max(mask.shape) <= MOST
            assert set(np.unique(mask)) == {CUP, RIM, BACKGROUND}

    def test_the_disc_is_brighter_than_the_frame_and_small_in_it(self, frames):
        for image, mask in frames:
            disc = mask != BACKGROUND
            assert 0.0005 < disc.mean() < 0.12
            assert image[disc].mean() > image.mean()

    def test_a_frame_depends_on_its_arguments_alone(self):
        first, again, other = (draw_frame("A", index, 0, most=MOST) for index in (0, 0, 1))
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
        assert first[0].shape != other[0].shape or (first[0] != other[0]).any()

    def test_an_unknown_domain_is_named(self):
        with pytest.raises(UsageError, match="phantom domain"):
            draw_frame("E", 0, 0)


class TestFolder:
    def test_frames_are_a_data_root(self, tmp_path, monkeypatch):
        monkeypatch.setattr("fundus_seg.phantom.make.draw_frame", partial(draw_frame, most=100))
        made = make_phantom(tmp_path / "frames", per_domain=3, seed=2, frames=True)
        root = open_root(made)
        assert [len(root.cases(domain, "train")) for domain in root.domains] == [2, 2, 2, 2]
        assert json.loads((made / PHANTOM_MARKER).read_text())["frames"] is True


class TestFieldOfView:
    @staticmethod
    def photograph(border=0, text=False):
        y, x = np.mgrid[:300, :500]
        image = np.full((300, 500, 3), border, np.uint8)
        image[np.hypot(y - 150, x - 220) < 130] = (160, 80, 40)
        if text:
            image[270:290, 380:490] = 255
        return image

    @pytest.mark.parametrize(("border", "text"), [(0, False), (35, False), (20, True)])
    def test_a_round_field_on_a_dark_border(self, border, text):
        box = field_box(self.photograph(border, text))
        np.testing.assert_allclose((box.x, box.y, box.width, box.height), (90, 20, 260, 260), atol=4)

    def test_a_dark_side_does_not_hide_the_rest(self):
        image = self.photograph()
        image[:, 300:] //= 4
        box = field_box(image)
        np.testing.assert_allclose((box.x, box.width), (90, 260), atol=6)

    def test_of_two_eyes_both_are_seen(self):
        image = np.hstack([self.photograph(), self.photograph()])
        box = field_box(image)
        np.testing.assert_allclose((box.x, box.width), (90, 760), atol=8)

    @pytest.mark.parametrize("shape", [(40, 60), (1, 1), (1200, 3)])
    @pytest.mark.parametrize("grey", [0, 128, 255])
    def test_without_a_border_it_is_all_of_the_photograph(self, shape, grey):
        assert field_box(np.full((*shape, 3), grey, np.uint8)) == Box.whole(shape)
