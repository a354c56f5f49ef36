from __future__ import annotations

import numpy as np
import pytest

from fundus_seg.data.box import Box

IMAGE = np.arange(1, 6 * 8 * 3 + 1, dtype=np.uint8).reshape(6, 8, 3)


class TestBox:
    @pytest.mark.parametrize("box", [Box(1, 2, 3, 4), Box(-2, -1, 5, 4), Box(6, 4, 5, 5), Box(-3, -3, 20, 20)])
    def test_what_is_pasted_lies_where_it_was_cut(self, box):
        part = box.cut(IMAGE)
        assert part.shape == (box.height, box.width, 3)
        pasted = box.paste(np.moveaxis(part, -1, 0), IMAGE.shape)
        inside = np.zeros((6, 8), bool)
        inside[max(box.y, 0) : box.y + box.height, max(box.x, 0) : box.x + box.width] = True
        np.testing.assert_array_equal(np.moveaxis(pasted, 0, -1), np.where(inside[..., None], IMAGE, 0))

    def test_beyond_the_photograph_is_black(self):
        part = Box(-1, 0, 2, 2).cut(IMAGE)
        assert not part[:, 0].any()
        np.testing.assert_array_equal(part[:, 1], IMAGE[:2, 0])

    def test_all_of_a_photograph_is_not_copied(self):
        whole = Box.whole(IMAGE.shape)
        masks = np.ones((2, 6, 8), bool)
        assert np.shares_memory(whole.cut(IMAGE), IMAGE)
        assert whole.paste(masks, IMAGE.shape) is masks

    def test_a_square_around_a_place_has_it_in_its_middle(self):
        assert Box.around(10.0, 20.0, 4.2) == Box(8, 18, 4, 4)
        assert Box.around(0.5, 0.5, 0.1) == Box(0, 0, 1, 1)

    @pytest.mark.parametrize(
        ("box", "meets"), [(Box(7, 5, 1, 1), True), (Box(8, 0, 9, 9), False), (Box(-4, 0, 4, 4), False)]
    )
    def test_whether_a_box_meets_the_photograph(self, box, meets):
        assert box.meets(IMAGE.shape) == meets
