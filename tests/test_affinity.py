"""What kernels learned of position: measures by hand, their files, and the three ways by which position enters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fundus_seg.errors import RunError, UsageError
from fundus_seg.models import bake, build_model, measure_layers
from fundus_seg.models.positions import kernel_keeping, measure_operator
from fundus_seg.ops import BakedTVConv2d, LinearTVConv2d, TVConv2d, UntiedConv2d
from fundus_seg.ops.dispatch import using
from fundus_seg.runs.kernels import PARTS, LayerKernels, read_kernels, subsets, write_kernels


def tvconv(size=(12, 13), *, maps=False, affines=False, **how):
    """A small TVConv whose affinity maps and affines vary over positions only if asked to."""
    torch.manual_seed(0)
    operator = TVConv2d(3, size, generator_channels=4, **how)
    with torch.no_grad():
        if maps:
            operator.affinity_maps.normal_()
        for norm in (each for each in operator.modules() if isinstance(each, nn.LayerNorm) and each.elementwise_affine):
            channel = torch.rand(norm.weight.shape[0], 1, 1)  # differs between channels, which is no position
            norm.weight.copy_(0.5 + (torch.rand_like(norm.weight) if affines else channel.expand_as(norm.weight)))
            norm.bias.copy_(torch.rand_like(norm.bias) if affines else channel.expand_as(norm.bias))
    return operator


class TestByHand:
    def test_free_kernels(self):
        """1 and 3: the mean is 2, the difference 1, the rms of all sqrt(5)."""
        operator = UntiedConv2d(1, (1, 2), kernel_size=1)
        operator.weight.data = torch.tensor([[[[1.0, 3.0]]]])
        found = measure_operator(operator)
        np.testing.assert_allclose(found.deviations[()], [[1 / math.sqrt(5)] * 2])
        assert found.spread() == pytest.approx(1 / math.sqrt(5))
        assert (found.parts, found.shares, found.affinity) == ((), {}, None)

    def test_channels_and_taps_count_alike_and_the_scale_does_not(self):
        """Two channels of two taps: one kernel element of four has 0 and 2; all others are 1."""
        weight = torch.ones(2, 9, 1, 2)
        weight[1, 4] = torch.tensor([0.0, 2.0])
        operator = UntiedConv2d(2, (1, 2))
        for scale in (1, 1e-3, -40):
            operator.weight.data = scale * weight
            assert measure_operator(operator).spread() == pytest.approx(math.sqrt((1 / 18) / ((17 + 2) / 18)), rel=1e-6)

    def test_a_linear_operator_varies_as_its_map_does(self):
        """A of 0 and 2: the mean is 1, SD 1, rms sqrt(2), whatever the basis; nothing is left at its mean."""
        operator = LinearTVConv2d(3, (1, 2), affinity_channels=1)
        operator.affinity_maps.data = torch.tensor([[[0.0, 2.0]]])
        found = measure_operator(operator)
        assert found.spread() == pytest.approx(1 / math.sqrt(2))
        assert found.spread(()) == 0
        assert found.shares == {"affinity": pytest.approx(0.5)}

    def test_a_mean_kernel_of_zero_spreads_by_all_and_no_kernel_by_nothing(self):
        operator = UntiedConv2d(1, (1, 2), kernel_size=1)
        for values, spread in (([-2.0, 2.0], 1), ([0.0, 0.0], 0), ([3.0, 3.0], 0)):
            operator.weight.data = torch.tensor([[[values]]])
            assert measure_operator(operator).spread() == spread

    def test_shares_are_means_over_all_orders(self):
        """Of two parts, spread² 0.16 and 0.36 alone, 0.64 together: 0.16 or 0.28, and 0.36 or 0.48."""
        energies = {(): 0, ("affinity",): 0.16, ("padding",): 0.36, ("affinity", "padding"): 0.64}
        maps = {kept: np.full((2, 2), math.sqrt(energy), np.float32) for kept, energy in energies.items()}
        shares = LayerKernels("x", ("affinity", "padding"), maps).shares
        assert shares == {"affinity": pytest.approx(0.22), "padding": pytest.approx(0.42)}


class TestParts:
    """Each way by which position enters, alone: all the spread is its own."""

    @pytest.mark.parametrize(
        ("operator", "part"),
        [
            (tvconv(maps=True, padding="replicate"), "affinity"),
            (tvconv(affines=True, padding="replicate"), "affines"),
            (tvconv(), "padding"),
        ],
        ids=PARTS,
    )
    def test_alone(self, operator, part):
        found = measure_operator(operator)
        assert found.spread() > 0.1
        assert found.spread((part,)) == pytest.approx(found.spread())
        assert found.spread(tuple(each for each in found.parts if each != part)) == pytest.approx(0, abs=1e-6)
        assert found.shares[part] == pytest.approx(found.spread() ** 2, rel=1e-5)

    def test_together_none_is_the_whole_and_their_shares_are(self):
        found = measure_operator(tvconv(maps=True, affines=True))
        assert found.parts == PARTS
        assert found.spread(()) == pytest.approx(0, abs=1e-6)
        assert sum(found.shares.values()) == pytest.approx(found.spread() ** 2)
        assert all(share > 0.01 for share in found.shares.values())
        assert len(found.deviations) == 8

    def test_nothing_varies_without_maps_affines_and_zeros(self):
        assert measure_operator(tvconv(padding="replicate")).spread() == pytest.approx(0, abs=1e-6)

    def test_what_an_ablation_took_away_is_no_part(self):
        assert measure_operator(tvconv(norm_affines=False)).parts == ("affinity", "padding")
        assert measure_operator(tvconv(norm_affines=False, padding="replicate")).parts == ("affinity",)

    def test_padding_reaches_five_positions_in(self):
        """Before training the inner kernels are equal, (h - 10) x (w - 10) of them, as ops/tvconv.py says."""
        torch.manual_seed(0)
        deviation = measure_operator(TVConv2d(3, (13, 14), generator_channels=4)).deviations[PARTS]
        assert np.ptp(deviation[5:-5, 5:-5]) < 1e-6
        assert np.ptp(deviation[4:-4, 4:-4]) > 1e-4

    @pytest.mark.parametrize(("size", "least", "most"), [(16, 0.44, 0.52), (6, 0.6, 0.9)])
    def test_padding_spreads_untrained_kernels_as_the_page_says(self, size, least, most):
        torch.manual_seed(0)
        found = measure_operator(TVConv2d(24, (size, size)))
        assert least < found.spread() < most
        assert found.spread(("affinity", "affines")) == pytest.approx(0, abs=1e-6)

    def test_maps_and_affines_are_told_as_they_are(self):
        operator = tvconv(maps=True, affines=True)
        found = measure_operator(operator)
        np.testing.assert_array_equal(found.affinity, operator.affinity_maps.detach())
        assert found.affines.shape == (2, 4, 12, 13)
        scale = operator.generator[1][1].weight.detach().numpy()
        expected = np.sqrt(np.square(scale - scale.mean((1, 2), keepdims=True)).mean(0))
        np.testing.assert_allclose(found.affines[0, 1], expected, rtol=1e-5)

    def test_measuring_changes_nothing(self):
        operator = tvconv(maps=True, affines=True).train()
        before = {name: value.clone() for name, value in operator.state_dict().items()}
        kernel = operator.kernel().detach().clone()
        measure_operator(operator)
        assert operator.training
        assert all(torch.equal(value, before[name]) for name, value in operator.state_dict().items())
        assert torch.equal(operator.kernel(), kernel)
        assert torch.equal(kernel_keeping(operator, PARTS), kernel)


class TestNetwork:
    def test_every_operator_is_named_by_its_place(self, network):
        assert [layer.name for layer in measure_layers(network)] == ["branch 6", "branch 12", "branch 18"]
        small = {"image_size": 32, "aspp_channels": 8, "expansion": 1, "generator_channels": 4}
        only = build_model("tvconv", encoder="tu-mobilenetv2_035", ablation="branch-12", **small)
        assert [layer.name for layer in measure_layers(only)] == ["branch 12"]
        with using("portable"):  # no kernel is compiled for one forward pass
            light = build_model("conv", encoder="tvconv-mobilenetv2-0.1", **small)
        names = [layer.name for layer in measure_layers(light)]
        assert len(names) > 10
        assert all(name.startswith("encoder.") for name in names)

    def test_a_network_without_positions_has_nothing_to_measure(self):
        small = {"image_size": 32, "aspp_channels": 8, "expansion": 1}
        assert measure_layers(build_model("depthwise", encoder="tu-mobilenetv2_035", **small)) == ()

    def test_a_baked_network_is_refused(self, network):
        with pytest.raises(UsageError, match="before `bake`"):
            measure_layers(bake(network))
        with pytest.raises(UsageError, match="baked"):
            measure_operator(BakedTVConv2d(torch.zeros(2, 9, 4, 4)))


class TestFiles:
    @pytest.fixture
    def layers(self):
        found = [measure_operator(tvconv((4, 5), maps=True, affines=True), "branch 6")]
        return [*found, measure_operator(UntiedConv2d(2, (4, 5)), "branch 12")]

    @pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 0), (np.float16, 1e-3)])
    def test_read_as_written(self, layers, tmp_path, dtype, tolerance):
        write_kernels(tmp_path / "a.npz", layers, digest="0123", dtype=dtype)
        there, digest = read_kernels(tmp_path / "a.npz")
        assert digest == "0123"
        assert [(each.name, each.parts) for each in there] == [(each.name, each.parts) for each in layers]
        for own, other in zip(layers, there, strict=True):
            for kept in subsets(own.parts):
                np.testing.assert_allclose(other.deviations[kept], own.deviations[kept], rtol=tolerance, atol=tolerance)
            assert (other.affinity is None) is (own.affinity is None)
        np.testing.assert_allclose(there[0].affinity, layers[0].affinity, rtol=tolerance)
        np.testing.assert_allclose(there[0].affines, layers[0].affines, rtol=tolerance, atol=tolerance)

    def test_equal_measures_are_equal_bytes(self, layers, tmp_path):
        for name in "ab":
            write_kernels(tmp_path / f"{name}.npz", layers)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text"])
    def test_a_damaged_file_is_one_line(self, content, tmp_path):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(RunError, match=r"a\.npz: cannot be read"):
            read_kernels(tmp_path / "a.npz")

    def test_a_cut_file_is_one_line(self, layers, tmp_path):
        write_kernels(tmp_path / "a.npz", layers)
        whole = (tmp_path / "a.npz").read_bytes()
        for count in (len(whole) // 2, len(whole) - 3):
            (tmp_path / "a.npz").write_bytes(whole[:count])
            with pytest.raises(RunError, match="cannot be read"):
                read_kernels(tmp_path / "a.npz")
