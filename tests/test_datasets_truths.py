"""How files of truth become masks, and how those of several readers become one."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_masks import coded as greys_of
from drawn_masks import eye, save
from PIL import Image

from fundus_seg.datasets import data_set
from fundus_seg.datasets.truths import binary_pair, coded, combined, soft_pair, staple
from fundus_seg.errors import DataError

RULES = data_set("refuge-train").rules()
SOFT = data_set("drishti-gs")
FRAME = (40, 40)


class TestCoded:
    @pytest.mark.parametrize("values", [(255, 128, 0), (0, 1, 2)])
    def test_both_codings(self, values, tmp_path):
        save(tmp_path / "mask.png", greys_of(eye(), *values))
        assert (coded([tmp_path / "mask.png"], FRAME, RULES) == eye()).all()

    def test_palette_and_rgb(self, tmp_path):
        flat = Image.fromarray(greys_of(eye(), 255, 128, 0))
        for mode in ("P", "RGB"):
            flat.convert(mode).save(tmp_path / f"{mode}.bmp")
            assert (coded([tmp_path / f"{mode}.bmp"], FRAME, RULES) == eye()).all()

    def test_other_greys_are_refused(self, tmp_path):
        save(tmp_path / "mask.png", greys_of(eye(), 0, 50, 90))
        with pytest.raises(DataError, match="are not of the coding"):
            coded([tmp_path / "mask.png"], FRAME, RULES)


def test_a_pair_of_two_sizes_is_refused(tmp_path):
    save(tmp_path / "disc.png", eye()[0].astype(np.uint8) * 255)
    save(tmp_path / "cup.png", eye(size=42)[1].astype(np.uint8) * 255)
    with pytest.raises(DataError, match="different sizes, 40x40 and 42x42"):
        binary_pair([tmp_path / "disc.png", tmp_path / "cup.png"], FRAME, RULES)


class TestSoftMaps:
    LEVELS = np.repeat([[0, 64, 128, 191, 255]], 5, axis=0).astype(np.uint8)

    @pytest.mark.parametrize(("agreement", "inside"), [(1, 4), (2, 3), (None, 2), (3, 2), (4, 1)])
    def test_a_pixel_counts_if_as_many_experts_drew_it(self, agreement, inside, tmp_path):
        save(tmp_path / "map.png", self.LEVELS)
        masks = soft_pair([tmp_path / "map.png"] * 2, (5, 5), SOFT.rules(agreement=agreement))
        assert masks.shape == (2, 5, 5)
        assert masks[0, 0].sum() == inside

    def test_a_grey_of_no_level_is_refused(self, tmp_path):
        save(tmp_path / "map.png", self.LEVELS + (self.LEVELS == 64))
        with pytest.raises(DataError, match=r"greys \[65\] in a soft map"):
            soft_pair([tmp_path / "map.png"] * 2, (5, 5), SOFT.rules())


class TestCombined:
    @pytest.mark.parametrize(("how", "inside"), [("union", 3), ("majority", 2), ("intersection", 1)])
    def test_by_counting(self, how, inside):
        masks = [np.tile(row, (2, 1, 1)) for row in ([[1, 1, 1, 0]], [[1, 1, 0, 0]], [[1, 0, 0, 0]])]
        assert combined([mask.astype(bool) for mask in masks], how)[0].sum() == inside


class TestStaple:
    def test_readers_who_agree_outvote_one_who_does_not(self):
        """Two readers draw the same square, the third a square beside it: EM trusts the two, whatever the union is."""
        square, beside = np.zeros((2, 24, 24), bool)
        square[6:14, 4:12] = True
        beside[6:14, 12:20] = True
        assert (staple([square, square, beside]) == square).all()

    def test_one_good_reader_may_outvote_two(self):
        """By hand, as in `_expectation_maximisation`: the library converges to the same truth."""
        rng = np.random.default_rng(1)
        truth = np.zeros((30, 30), bool)
        truth[8:22, 8:22] = True
        readers = [truth ^ (rng.random(truth.shape) < share) & _ring(truth) for share in (0.02, 0.2, 0.2, 0.3)]
        assert (staple(readers) == _expectation_maximisation(readers)).all()

    def test_the_background_of_the_frame_changes_nothing(self):
        rng = np.random.default_rng(2)
        truth = np.zeros((40, 40), bool)
        truth[15:25, 15:25] = True
        readers = [truth ^ (rng.random(truth.shape) < 0.3) & _ring(truth) for _ in range(3)]
        wide = [np.pad(reader, 60) for reader in readers]
        assert (staple(wide)[60:-60, 60:-60] == staple(readers)).all()

    def test_no_mask_at_all_stays_empty(self):
        assert not staple([np.zeros((5, 5), bool)] * 2).any()


def _ring(truth):
    rows, columns = np.nonzero(truth)
    ring = np.zeros_like(truth)
    ring[rows.min() - 3 : rows.max() + 4, columns.min() - 3 : columns.max() + 4] = True
    return ring


def _expectation_maximisation(readers):
    """STAPLE by its equations (Warfield et al. 2004, eq. 14, 18 and 19), on the box that `staple` looks at."""
    union = np.any(readers, axis=0)
    rows, columns = (np.flatnonzero(union.any(axis=axis)) for axis in (1, 0))
    box = tuple(
        slice(max(0, places[0] - len(places) // 2), places[-1] + 1 + len(places) // 2) for places in (rows, columns)
    )
    decisions = np.stack([reader[box] for reader in readers]).astype(float)
    prior = decisions.mean()
    sensitivity = specificity = np.full((len(readers), 1, 1), 0.99999)
    for _ in range(200):
        inside = prior * np.prod(np.where(decisions == 1, sensitivity, 1 - sensitivity), axis=0)
        outside = (1 - prior) * np.prod(np.where(decisions == 1, 1 - specificity, specificity), axis=0)
        weight = inside / (inside + outside)
        sensitivity = (weight * decisions).sum(axis=(1, 2), keepdims=True) / weight.sum()
        specificity = ((1 - weight) * (1 - decisions)).sum(axis=(1, 2), keepdims=True) / (1 - weight).sum()
    truth = np.zeros(union.shape, bool)
    truth[box] = weight > 0.5
    return truth
