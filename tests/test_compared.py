"""The operators that the paper compares: each against its equations, and what it must keep or give up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import reference_compared as reference
import torch
import torch.nn.functional as F
from small_runs import killed_in_epoch, settings, weights
from torch import Tensor, nn

from fundus_seg.builtins import OPERATORS
from fundus_seg.config import load_config
from fundus_seg.data.layout import open_root
from fundus_seg.models import build_model
from fundus_seg.models.aspp import ASPP
from fundus_seg.models.blocks import count_parameters
from fundus_seg.models.checkpoint import load_network
from fundus_seg.models.operators import BranchSettings
from fundus_seg.models.shapes import without_numbers
from fundus_seg.ops import compared
from fundus_seg.ops.compared.ddf import decoupled_filter, decoupled_filter_backward
from fundus_seg.ops.compared.dyconv import set_temperature
from fundus_seg.ops.compared.windows import window_products, window_sums
from fundus_seg.plugins import find
from fundus_seg.profiling import Macs, count_macs, peak_memory
from fundus_seg.training import train
from fundus_seg.training.optimiser import decay_groups

CHANNELS, HEIGHT, WIDTH = 6, 5, 4


@dataclass(frozen=True)
class Kind:
    """An operator: how a small one is made, and its equations."""

    make: Callable[[], nn.Module]
    reference: Callable[[Any, Tensor], Tensor]
    per_image: bool = False
    """Whether kernels come from the mean of the image."""
    reach: int | None = 1
    """How far a window reaches; None: over the whole map, and the operator knows where in it a position is."""


KINDS = {
    "condconv": Kind(lambda: compared.CondConv2d(CHANNELS, experts=3), reference.condconv, per_image=True),
    "weightnet": Kind(lambda: compared.WeightNet2d(CHANNELS, reduction=3), reference.weightnet, per_image=True),
    "dyconv-dw": Kind(
        lambda: compared.DYConvDepthwise2d(CHANNELS, reduction=2), reference.dyconv_depthwise, per_image=True
    ),
    "dyconv-pw": Kind(
        lambda: compared.DYConvPointwise2d(CHANNELS, 7, reduction=2), reference.dyconv_pointwise, True, 0
    ),
    "involution": Kind(lambda: compared.Involution2d(CHANNELS, group_channels=2), reference.involution, reach=3),
    "ddf": Kind(lambda: compared.DDF2d(CHANNELS, reduction=0.5), reference.ddf, per_image=True),
    "sasa": Kind(lambda: compared.SASA2d(CHANNELS, heads=2), reference.sasa, reach=3),
    "axial": Kind(lambda: compared.AxialAttention2d(CHANNELS, (HEIGHT, WIDTH), heads=2), reference.axial, reach=None),
    "mlp-mixer": Kind(
        lambda: compared.MLPMixer2d(CHANNELS, 8, (HEIGHT, WIDTH), layers=2), reference.mlp_mixer, reach=None
    ),
}
EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
LOCAL = {name: kind for name, kind in KINDS.items() if kind.reach is not None}


def images(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = shape or (2, CHANNELS, HEIGHT, WIDTH)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def made(kind: Kind, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The operator in evaluation mode, all parameters and statistics of norms unlike those at the start."""
    torch.manual_seed(0)
    module = kind.make().to(dtype).eval()
    set_temperature(module, 0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.add_(0.3 * torch.rand_like(buffer))
    return module


class TestEquations:
    @EACH
    def test_equals_the_slow_reference(self, kind: Kind) -> None:
        module, x = made(kind), images()
        with torch.no_grad():
            expected = reference.by_image(kind.reference)(module, x)
            assert expected.std() > 0.1
            torch.testing.assert_close(module(x), expected)

    @EACH
    def test_gradients(self, kind: Kind) -> None:
        module = made(kind)
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        x = images(2, CHANNELS, HEIGHT, WIDTH).requires_grad_()
        given = [p.requires_grad_() for p in parameters.values()]

        def loss(x: Tensor, *values: Tensor) -> Tensor:
            return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

        assert torch.autograd.gradcheck(loss, (x, *given), fast_mode=True)

    @pytest.mark.parametrize("channels_last", [False, True])
    @EACH
    def test_layouts_and_precisions(self, kind: Kind, channels_last: bool) -> None:
        module, x = made(kind), images()
        exact = module(x)
        module.float()
        x = x.float().contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        out = module(x)
        torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-4)
        assert out.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        assert torch.equal(module(x), out)  # deterministic
        with torch.autocast("cpu", torch.bfloat16):
            half = module(x)
        near = {"rtol": 0.1, "atol": 0.1 * exact.abs().max().item()}
        torch.testing.assert_close(half.double(), exact, **near)
        own = copy.deepcopy(module).bfloat16()(x.bfloat16())
        assert own.dtype == torch.bfloat16
        torch.testing.assert_close(own.double(), exact, **near)

    @EACH
    def test_gradients_in_half_precision_reach_every_parameter(self, kind: Kind) -> None:
        module, x = made(kind, torch.float32).train(), images(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            module(x.contiguous(memory_format=torch.channels_last)).float().square().mean().backward()
        assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_ddf_s_filter_is_an_operator_of_torch(self, channels_last: bool) -> None:
        """Its function for tensors without numbers gives the shapes and layouts that the numbers have."""
        x, spatial, channel = images(), images(2, HEIGHT, WIDTH, 9).permute(0, 3, 1, 2), images(2, CHANNELS, 9)
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        torch.library.opcheck(decoupled_filter, (x, spatial, channel, 3, 1, 1))
        torch.library.opcheck(decoupled_filter_backward, (x, x, spatial, channel, 3, 1, 1))


class TestTranslation:
    """Where position is unknown, a shifted map gives a shifted result; images are compared away from the borders."""

    @staticmethod
    def shifted_pair(kind: Kind) -> tuple[Tensor, Tensor]:
        """Results of a map with a patch in it, and of the same map with the patch two rows further down."""
        reach = kind.reach or 0
        module, size = made(kind), 2 * reach + 8
        patch = images(1, CHANNELS, 2, 2)
        out = []
        for row in (reach + 1, reach + 3):
            x = torch.zeros(1, CHANNELS, size, size, dtype=torch.float64)
            x[:, :, row : row + 2, 3:5] = patch
            with torch.no_grad():
                out.append(module(x))
        return out[0][:, :, :-2], out[1][:, :, 2:]

    @pytest.mark.parametrize("kind", LOCAL.values(), ids=LOCAL)
    def test_holds_without_position(self, kind: Kind) -> None:
        here, there = self.shifted_pair(kind)
        assert kind.reach is not None
        inner = slice(kind.reach, here.shape[2] - kind.reach)  # the windows of the others reach over a border
        torch.testing.assert_close(here[:, :, inner], there[:, :, inner])

    @pytest.mark.parametrize("name", [name for name in KINDS if name not in LOCAL])
    def test_breaks_with_position(self, name: str) -> None:
        here, there = self.shifted_pair(KINDS[name])
        assert (here - there).abs().max() > 0.01

    @EACH
    def test_images_see_only_themselves(self, kind: Kind) -> None:
        module, x = made(kind), images()
        torch.testing.assert_close(module(x)[:1], module(x[:1]))

    @pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.per_image])
    def test_another_image_has_another_kernel(self, name: str) -> None:
        """So the result is not linear in the image, and not even equal when a far corner changes."""
        module, x = made(KINDS[name]), images()
        other = x.clone()
        other[:, :, -1, -1] += 5
        assert not torch.allclose(module(x)[:, :, 0, 0], module(other)[:, :, 0, 0])


class TestSizes:
    @pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 7)])
    @EACH
    def test_other_maps_are_taken(self, kind: Kind, size: tuple[int, int]) -> None:
        out = made(kind)(images(2, CHANNELS, *size))
        assert out.shape[2:] == size
        assert out.isfinite().all()

    def test_axial_keeps_the_offsets_of_0_and_of_the_ends(self) -> None:
        rows = compared.AxialAttention2d(CHANNELS, (5, 4)).along_columns
        own, wider = rows._embeddings(5), rows._embeddings(9)
        torch.testing.assert_close(wider[:, ::2, ::2], own)
        torch.testing.assert_close(wider[:, 0, 1], own[:, 0, :2].mean(dim=1))
        torch.testing.assert_close(rows._embeddings(1)[:, 0, 0], own[:, 2, 2])

    def test_the_mixer_resamples_the_map(self) -> None:
        mixer, x = made(KINDS["mlp-mixer"]), images(1, CHANNELS, 8, 7)
        small = F.interpolate(x, (HEIGHT, WIDTH), mode="bilinear")
        torch.testing.assert_close(mixer(x), F.interpolate(mixer(small), (8, 7), mode="bilinear"))

    def test_groups_and_heads_fit_any_width(self) -> None:
        assert compared.Involution2d(1920).groups == 120
        assert compared.Involution2d(34).groups == 17  # groups of 2 channels: 17 channels are too many
        assert compared.SASA2d(12).heads == 6
        assert compared.AxialAttention2d(7, (3, 3)).along_rows.heads == 7


class TestDegenerate:
    """Set so, each is a plain convolution or plain attention."""

    @pytest.mark.parametrize("name", ["condconv", "weightnet", "dyconv-dw", "involution", "ddf"])
    def test_is_a_depthwise_convolution(self, name: str) -> None:
        module, x = made(KINDS[name]), images()
        with torch.no_grad():
            if isinstance(module, compared.CondConv2d):
                module.routing.weight.zero_()
                kernel = module.experts.sum(dim=0) / 2
            elif isinstance(module, compared.WeightNet2d):
                for parameter in module.activation.parameters():
                    parameter.zero_()
                kernel = module.kernels.sum(dim=1) / 2
            elif isinstance(module, compared.DYConvDepthwise2d):
                kernel = module.weight[0].clone()
                module.weight.copy_(kernel)
                module.bias.zero_()
            elif isinstance(module, compared.Involution2d):
                module.generator[3].weight.zero_()
                kernel = module.generator[3].bias.view(module.groups, -1).repeat_interleave(2, dim=0)
            else:
                assert isinstance(module, compared.DDF2d)
                module.spatial_scale.zero_(), module.spatial_shift.fill_(1)
                module.channel[2].weight.zero_()
                filters = module.channel[2].bias.view(CHANNELS, 9)
                kernel = F.layer_norm(filters, (9,)) * module.channel_scale[:, None] + module.channel_shift[:, None]
            k = 7 if name == "involution" else 3
            plain = F.conv2d(x, kernel.view(CHANNELS, 1, k, k), padding=k // 2, groups=CHANNELS)
            torch.testing.assert_close(module(x), plain)

    def test_dyconv_of_equal_kernels_is_a_pointwise_convolution(self) -> None:
        module, x = made(KINDS["dyconv-pw"]), images()
        with torch.no_grad():
            kernel, bias = module.weight[0].clone(), module.bias[0].clone()
            module.weight.copy_(kernel), module.bias.copy_(bias)
            torch.testing.assert_close(module(x), F.conv2d(x, kernel[:, :, None, None], bias))

    def test_attention_without_queries_is_a_mean(self) -> None:
        sasa, axial, x = made(KINDS["sasa"]), made(KINDS["axial"]), images(1, CHANNELS, 9, 8)
        with torch.no_grad():
            sasa.project.weight[:CHANNELS] = 0
            values = F.conv2d(x, sasa.project.weight[2 * CHANNELS :])
            torch.testing.assert_close(sasa(x), F.avg_pool2d(values, 7, 1, 3, count_include_pad=False))
            for line in (axial.along_columns, axial.along_rows):
                line.norm_logits.weight.zero_(), line.norm_sums.weight[CHANNELS:].zero_()  # nothing of the offsets
            out = axial(x)
        torch.testing.assert_close(out, out.mean(dim=(2, 3), keepdim=True).expand_as(out))

    def test_attention_without_embeddings_is_the_plain_one(self) -> None:
        """In a window that holds the whole map, and along rows; torch's own attention computes the same."""
        sasa, x = made(KINDS["sasa"]), images(2, CHANNELS, 3, 4)
        with torch.no_grad():
            sasa.rows.zero_(), sasa.columns.zero_()
            q, k, v = sasa.project(x).flatten(2).unflatten(1, (3, 2, 3)).transpose(3, 4).unbind(1)
            plain = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
            torch.testing.assert_close(sasa(x), plain)
            rows = compared.AxialAttention2d(CHANNELS, (3, 4), heads=2).double().eval().along_rows
            rows.offsets.zero_()
            for norm in (rows.project[1], rows.norm_logits, rows.norm_sums):
                norm.eps = 0.0
            parts = rows.project(x).permute(0, 2, 1, 3).unflatten(2, (2, -1)).split(rows.widths, dim=3)
            q, k, v = (part.transpose(3, 4) for part in parts)  # (B, H, heads, W, ..)
            plain = F.scaled_dot_product_attention(q, k, v, scale=1.0).permute(0, 2, 4, 1, 3).reshape(x.shape)
            torch.testing.assert_close(rows(x), plain)

    def test_a_mixer_that_mixes_no_positions_is_the_same_everywhere(self) -> None:
        mixer = made(KINDS["mlp-mixer"])
        for layer in mixer.layers:
            nn.init.zeros_(layer.mix_positions[2].weight), nn.init.zeros_(layer.mix_positions[2].bias)
        x = images()
        torch.testing.assert_close(mixer(x.flip(2, 3)), mixer(x).flip(2, 3))


class TestWindows:
    def test_products_are_the_gradient_of_sums(self) -> None:
        x, grad = images(2, 6, 5, 4), images(2, 6, 5, 4, seed=2)
        weight = images(2, 3, 9, 5, 4, seed=3).requires_grad_()
        (window_sums(x, weight) * grad).sum().backward()
        torch.testing.assert_close(window_products(grad, x, 3, 3), weight.grad)

    def test_nothing_writes_windows(self) -> None:
        """Forward and backward hold less at once than the k² copies of the map that `unfold` would write."""
        x = torch.randn(1, 64, 32, 32, requires_grad=True)
        for k, module in ((7, compared.Involution2d(64)), (7, compared.SASA2d(64)), (3, compared.DDF2d(64))):
            used = peak_memory(lambda module=module: module(x).sum().backward())
            assert used < k * k * x.nbytes, type(module).__name__


class TestCosts:
    P, C = 8 * 8, 8

    @pytest.mark.parametrize(
        ("module", "macs"),
        [
            (compared.CondConv2d(8, experts=3), C * 3 + 3 * C * 9 + 9 * C * P),
            (compared.WeightNet2d(8, reduction=4), C * 2 + 2 * 2 * C + 2 * 9 * C + 9 * C * P),
            (compared.DYConvDepthwise2d(8), C * 2 + 2 * 4 + 4 * 9 * C + 4 * C + 9 * C * P),
            (compared.DYConvPointwise2d(8, 5), C * 2 + 2 * 4 + 4 * 5 * C + 4 * 5 + 5 * C * P),
            (compared.Involution2d(8, group_channels=4), (C * 2 + 2 * 49 * 2 + 49 * C) * P),
            (compared.DDF2d(8, reduction=0.5), C * 9 * P + C * 4 + 4 * 9 * C + 2 * 9 * C * P),
            (compared.SASA2d(8, heads=2), (3 * C * C + 2 * 49 * C + 7 * C) * P),
            # Two axes; heads of 4 channels with keys of 2: three terms of logits, two of sums, over lines of 8.
            (compared.AxialAttention2d(8, (8, 8), heads=2), 2 * (C * 16 + 2 * 8 * (3 * 2 + 2 * 4)) * P),
            (compared.MLPMixer2d(8, 6, (8, 8), layers=2), (C * 6 + 2 * (2 * 3 * 6 + 2 * 6 * 24)) * P),
        ],
        ids=KINDS,
    )
    def test_macs_by_hand(self, module: nn.Module, macs: int) -> None:
        """Kernels that are made from an image count with it: nothing is generated once for all."""
        network = nn.Sequential(nn.Conv2d(3, self.C, 1), module).eval()
        assert count_macs(network, 8) == Macs(image=3 * self.C * self.P + macs, generation=0)

    def test_parameters_are_those_that_docstrings_and_the_guide_say(self) -> None:
        guide = (Path(__file__).parents[1] / "docs" / "guide.md").read_text("utf8")
        for op in KINDS:
            with without_numbers():
                count = f"{count_parameters(build_model(op)):,}"
            assert f"{count} parameters" in find("operator", op, OPERATORS).__doc__, op
            (line,) = (line for line in guide.splitlines() if line.startswith(f"| `{op}` |"))
            assert f"| {count} |" in line


class TestNetworks:
    def test_dyconv_replaces_the_pointwise_convolutions_or_the_depthwise_one(self) -> None:
        settings = BranchSettings((4, 4), expansion=2, generator_channels=8)
        layers = {
            op: [type(layer) for layer in find("operator", op, OPERATORS)(4, 6, 6, settings)][::3]
            for op in ("depthwise", "dyconv-dw", "dyconv-pw")
        }
        assert layers == {
            "depthwise": [nn.Conv2d, nn.Conv2d, nn.Conv2d],
            "dyconv-dw": [nn.Conv2d, compared.DYConvDepthwise2d, nn.Conv2d],
            "dyconv-pw": [compared.DYConvPointwise2d, nn.Conv2d, compared.DYConvPointwise2d],
        }

    def test_the_mixer_replaces_the_whole_aspp(self) -> None:
        network = build_model("mlp-mixer", encoder="tu-mobilenetv2_035", image_size=64, aspp_channels=16)
        assert [type(module) for module in network.modules()].count(compared.MLPMixer2d) == 1
        assert not any(isinstance(module, ASPP) for module in network.modules())
        assert isinstance(network.aspp, nn.Sequential)
        assert network.aspp[0].layers[0].mix_positions[0].in_features == 4 * 4

    @pytest.mark.parametrize("op", ["sasa", "axial"])
    def test_embeddings_of_offsets_do_not_decay(self, op: str) -> None:
        network = build_model(op, encoder="tu-mobilenetv2_035", image_size=64, aspp_channels=8, expansion=1)
        decaying = {id(parameter) for parameter in decay_groups(network)[0]}
        names = [name for name, p in network.named_parameters() if id(p) not in decaying and p.ndim > 1]
        assert {name.rpartition(".")[2] for name in names} == {"sasa": {"rows", "columns"}, "axial": {"offsets"}}[op]


class TestTemperature:
    def test_falls_evenly_to_one(self) -> None:
        paper = load_config("tiny", arguments={"holdout": "A", "model.op": "dyconv-dw"}).train
        assert [paper.temperature_at(epoch) for epoch in (0, 5, 10, 39)] == [30, 15.5, 1, 1]
        at_once = paper.model_copy(update={"temperature_epochs": 0})
        assert at_once.temperature_at(0) == 1

    def test_makes_attention_uniform(self) -> None:
        module, x = made(KINDS["dyconv-dw"]), images()
        spread = []
        for temperature in (1e6, 30.0, 1.0):
            set_temperature(module, temperature)
            spread.append((module.attention(x) - 1 / 4).abs().max().item())
        assert spread[0] < 1e-5 < spread[1] < spread[2]

    def test_is_that_of_the_epoch_and_lies_in_the_checkpoint(
        self, draw_root: Callable[..., Path], tmp_path: Path
    ) -> None:
        root, overrides = open_root(draw_root()), ("train.epochs=2", "train.temperature_epochs=2")
        whole = train(settings(*overrides, op="dyconv-dw"), root, tmp_path / "whole")
        with killed_in_epoch(2):
            train(settings(*overrides, op="dyconv-dw"), root, tmp_path / "parts")
        parts = train(settings(*overrides, op="dyconv-dw"), root, tmp_path / "parts")
        of_both = weights(whole), weights(parts)
        assert all(torch.equal(of_both[0][name], value) for name, value in of_both[1].items())
        assert {value.item() for name, value in of_both[0].items() if name.endswith("temperature")} == {15.5}
        network, _ = load_network(whole.checkpoint("last"))
        assert network.aspp.branches[0][3].attention.temperature == 15.5

    def test_names_no_run_of_another_operator(self) -> None:
        idle = "train.temperature=5"
        assert settings(idle, op="condconv").recipe(all_domains="ABCD") == ""
        assert settings(idle, op="dyconv-pw").recipe(all_domains="ABCD").startswith("temperature=5")
