"""Variance of features within photographs and across them: by hand, of an encoder, and the command."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from fundus_seg.data.layout import open_root
from fundus_seg.errors import UsageError
from fundus_seg.evaluation.feature_variance import measure_variance, misaligned
from fundus_seg.statistics.layout import LayoutVariance

SMALL = {"encoder": "mobilenet_v2", "weights": "none", "size": 32}


def variances(*batches: object) -> LayoutVariance:
    found = LayoutVariance()
    for batch in batches:
        found.add(np.array(batch, float))
    return found


class TestByHand:
    def test_two_images_of_one_channel_and_two_positions(self):
        """Within 0, 2 and 4, 10: 1 and 9, mean 5. Across 0, 4 and 2, 10: 8 and 32, mean 20."""
        found = variances([[[[0, 2]]], [[[4, 10]]]])
        assert (found.intra, found.cross, found.images) == (5, 20, 2)

    def test_channels_are_averaged(self):
        found = variances([[[[0, 2]], [[0, 0]]], [[[4, 10]], [[0, 0]]]])
        assert (found.intra, found.cross) == (2.5, 10)

    def test_equal_images_do_not_vary_across_and_flat_ones_not_within(self):
        assert variances([[[[1, 5]]]] * 3).cross == 0
        assert variances([[[[1, 1]]], [[[3, 3]]]]).intra == 0
        assert np.isnan(variances([[[[1, 5]]]]).cross)

    def test_batches_do_not_count_and_a_large_mean_costs_no_digits(self):
        features = np.random.default_rng(0).normal(size=(7, 3, 4, 5))
        expected = features.var(axis=0, ddof=1).mean(), features.var(axis=(2, 3)).mean()
        for offset in (0, 1e7):
            found = variances(features[:2] + offset, features[2:3] + offset, features[3:] + offset)
            assert (found.cross, found.intra) == pytest.approx(expected, rel=1e-6)


class TestPhotographs:
    def test_a_shift_moves_pixels_and_reflects_them(self, draw_root):
        case = open_root(draw_root("AB", domains="AB")).cases("A", "train")[0]
        image = np.arange(20 * 20 * 3, dtype=np.uint32).reshape(20, 20, 3).astype(np.uint8)
        np.testing.assert_array_equal(misaligned(image, case, 0, 5), image)
        moved = [misaligned(image, case, 0.3, seed) for seed in range(4)]
        assert all(each.shape == image.shape for each in moved)
        assert len({each.tobytes() for each in moved}) > 1
        assert {*np.unique(moved[0])} <= {*np.unique(image)}
        np.testing.assert_array_equal(moved[0], misaligned(image, case, 0.3, 0))

    def test_misaligned_crops_vary_more_across_and_a_seed_gives_the_same_numbers(self, draw_root):
        root = open_root(draw_root("AB", domains="AB"))
        first = measure_variance(root, ("train",), shifts=(0.4,), **SMALL)
        ratio = first.rows.set_index(["domain", "shift", "stage"])["ratio"]
        assert (first.rows["stride"].unique() == [2, 4, 8, 16]).all()
        assert ratio["A", 0.4, 1] > ratio["A", 0, 1]
        assert ratio["B", 0.4, 1] > ratio["B", 0, 1]
        assert (first.rows["photographs"] == 3).all()
        pd.testing.assert_frame_equal(first.rows, measure_variance(root, ("train",), shifts=(0.4,), **SMALL).rows)

    @pytest.mark.parametrize(("wrong", "named"), [({"size": 40}, "size 40"), ({"shifts": [0.7]}, "shift 0.7")])
    def test_what_does_not_fit_is_refused(self, draw_root, wrong, named):
        with pytest.raises(UsageError, match=named):
            measure_variance(open_root(draw_root("AB", domains="AB")), **{**SMALL, **wrong})


def test_the_command(draw_root, command):
    root = draw_root("AB", domains="AB", train=2, test=1)
    (root / "Domain1/test/ROIs/image/Atest0.png").write_bytes(b"")
    options = ("--encoder", "mobilenet_v2", "--encoder-weights", "none", "--size", "32", "--split", "test")
    assert "no domain has two photographs" in command("data", "variance", root, *options, code=1).err
    options = (*options[:-1], "all", "--format", "csv", "--plots", "plots", "--strict")
    printed = command("data", "variance", root, *options, code=3)
    assert "left out: 1 file" in printed.err
    assert "Atest0.png" in printed.err
    assert "random weights" in printed.out
    frame = pd.read_csv(io.StringIO(printed.out), comment="#")
    assert frame.groupby("domain")["photographs"].first().to_dict() == {"A": 2, "B": 3}
    assert set(frame["shift"]) == {0, 0.2}
    assert (root.parent / "plots" / "variance.png").is_file()
