"""The operators that the paper compares: each against its equations, and what it must keep or give up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import reference_compared as reference
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.ops import compared
from fundus_seg.ops.compared.dyconv import set_temperature
from fundus_seg.ops.compared.windows import window_products, window_sums

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

    @pytest.mark.parametrize("name", KINDS.keys() - LOCAL.keys())
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
        from fundus_seg.profiling import peak_memory

        x = torch.randn(1, 64, 32, 32, requires_grad=True)
        for k, module in ((7, compared.Involution2d(64)), (7, compared.SASA2d(64)), (3, compared.DDF2d(64))):
            used = peak_memory(lambda module=module: module(x).sum().backward())
            assert used < k * k * x.nbytes, type(module).__name__
