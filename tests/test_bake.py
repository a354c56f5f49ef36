from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from small_runs import EACH_OPERATOR
from torch import nn

from fundus_seg.models import bake, build_model
from fundus_seg.ops import BakedTVConv2d, TranslationVariantConv2d, TVConv2d

TINY: dict[str, Any] = {
    "encoder": "tu-mobilenetv2_035",
    "image_size": 64,
    "aspp_channels": 16,
    "expansion": 1,
    "generator_channels": 8,
}


def trained(op: str = "tvconv") -> nn.Module:
    """A network whose norms have statistics, scales and shifts of their own, and whose kernels differ in space."""
    torch.manual_seed(0)
    network = build_model(op, **TINY)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
        if isinstance(module, TVConv2d):
            nn.init.normal_(module.affinity_maps)
    return network.eval()


def images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def spatial(network: nn.Module) -> list[TranslationVariantConv2d]:
    return [module for module in network.modules() if isinstance(module, TranslationVariantConv2d)]


class TestLogits:
    @pytest.mark.parametrize("size", [(64, 64), (48, 96)])
    @pytest.mark.parametrize("op", EACH_OPERATOR)
    def test_are_kept(self, op: str, size: tuple[int, int]) -> None:
        network, x = trained(op), images(*size)
        with torch.inference_mode():
            logits, exact = network(x), network.double()(x.double())
            baked = bake(network)(x.double())
            single = bake(network.float())(x)
        assert (baked - exact).norm() <= 1e-10 * exact.norm()
        assert (single - logits).abs().max() <= 1e-5 * max(1, logits.abs().max())
        assert logits.std() > 0.01

    def test_baking_twice_changes_nothing(self) -> None:
        baked = bake(trained())
        with torch.inference_mode():
            assert torch.equal(bake(baked)(images()), baked(images()))

    def test_baked_networks_follow_dtype_and_autocast(self) -> None:
        baked = bake(trained())
        with torch.inference_mode():
            logits = baked(images())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                torch.testing.assert_close(
                    baked(images()).float(), logits, rtol=0.1, atol=0.1 * logits.abs().max().item()
                )
            assert baked.bfloat16()(images().bfloat16()).dtype == torch.bfloat16

    def test_gradients_reach_the_image_through_baked_layers(self) -> None:
        x = images(6, 5).requires_grad_()
        layer = nn.Sequential(TVConv2d(3, (6, 5), generator_channels=4), nn.BatchNorm2d(3)).eval()
        expected = torch.autograd.grad(layer(x).square().sum(), x)
        torch.testing.assert_close(torch.autograd.grad(bake(layer)(x).square().sum(), x), expected)

    def test_an_operator_alone_is_baked(self) -> None:
        layer = TVConv2d(3, (6, 5), 5, generator_channels=4, stride=2, resample="bilinear", kernel_cache_bytes=12000)
        baked = bake(layer)
        assert isinstance(baked, BakedTVConv2d)
        assert (baked.size, baked.kernel_size, baked.stride, baked.resample) == ((6, 5), 5, 2, "bilinear")
        assert baked.bias is None
        torch.testing.assert_close(baked(images(12, 10)), layer(images(12, 10)))
        torch.testing.assert_close(baked(images(9, 14)), layer(images(9, 14)))
        with pytest.raises(MemoryError, match="raise kernel_cache_bytes"):
            baked(images(20, 20))


class TestFolding:
    """What becomes of the generator and of the batch norm."""

    def test_nothing_of_the_generator_or_the_batch_norm_is_left(self) -> None:
        network = trained()
        baked = bake(network)
        assert [type(module) for module in spatial(baked)] == 3 * [BakedTVConv2d]
        for branch in baked.aspp.branches:
            assert [type(layer) for layer in branch][3:6] == [BakedTVConv2d, nn.Identity, nn.ReLU6]
            assert {name: tuple(p.shape) for name, p in branch[3].named_parameters()} == {
                "weight": (112, 9, 4, 4),
                "bias": (112,),
            }
        assert not any(p.requires_grad for p in baked.parameters())
        assert not any(module.training for module in baked.modules())

    @pytest.mark.parametrize("norm", [nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, eps=0.5), nn.ReLU(), None])
    def test_what_follows_is_folded_if_it_can_be(self, norm: nn.Module | None) -> None:
        layers = [TVConv2d(3, (6, 5), generator_channels=4, stride=2), *([norm] if norm else []), nn.Sigmoid()]
        network = nn.Sequential(*layers).eval()
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean)
        x = images(12, 9)
        baked = bake(network)
        torch.testing.assert_close(baked(x), network(x))
        assert (baked[0].bias is not None) == isinstance(norm, nn.BatchNorm2d)

    def test_a_norm_by_the_batch_s_own_statistics_is_kept(self) -> None:
        network = nn.Sequential(TVConv2d(3, (6, 5), generator_channels=4), nn.BatchNorm2d(3, track_running_stats=False))
        baked = bake(network.eval())
        assert isinstance(baked[1], nn.BatchNorm2d)
        torch.testing.assert_close(baked(images(6, 5)), network(images(6, 5)))

    def test_constant_kernels_are_kept_though_gradients_are_recorded(self) -> None:
        baked = bake(trained())
        kernels = [op.kernel((9, 9)) for op in baked.modules() if isinstance(op, BakedTVConv2d)]
        assert kernels
        again = [op.kernel((9, 9)) for op in baked.modules() if isinstance(op, BakedTVConv2d)]
        assert all(a is b for a, b in zip(kernels, again, strict=True))


class TestState:
    def test_the_network_itself_stays_as_it_is(self) -> None:
        network = trained().train()
        before = copy.deepcopy(network.state_dict())
        bake(network)
        assert all(module.training for module in network.modules())
        assert all(p.requires_grad for p in network.parameters())
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
        assert [type(module) for module in spatial(network)] == 3 * [TVConv2d]

    def test_a_baked_state_is_saved_and_loaded(self) -> None:
        baked, file = bake(trained()), io.BytesIO()
        torch.save(baked.state_dict(), file)
        file.seek(0)
        twin = bake(build_model(**baked.spec))
        with torch.inference_mode():
            assert not torch.equal(twin(images(96, 64)), baked(images(96, 64)))
            twin.load_state_dict(torch.load(file, weights_only=True))
            assert torch.equal(twin(images(96, 64)), baked(images(96, 64)))
            assert torch.equal(twin(images()), baked(images()))
