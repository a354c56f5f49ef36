from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import EACH_OPERATOR
from torch import nn

from fundus_seg.errors import UsageError
from fundus_seg.models import build_model, scale_photographs
from fundus_seg.models.checkpoint import load_network, network_state
from fundus_seg.ops import TVConv2d

TINY: dict[str, Any] = {
    "encoder": "tu-mobilenetv2_035",
    "image_size": 64,
    "aspp_channels": 16,
    "expansion": 1,
    "generator_channels": 8,
}


def images(size: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


CONTROLS = ("depthwise-dilated", "depthwise-wide", "untied", "linear", "coordconv")


class TestParameters:
    @pytest.mark.parametrize(("op", "count"), [("conv", 5_220_834), ("depthwise", 6_401_634), ("tvconv", 36_944_610)])
    def test_of_the_released_networks(self, op: str, count: int) -> None:
        assert parameters(build_model(op)) == count

    def test_of_the_controls(self) -> None:
        counts = {op: parameters(build_model(op)) for op in CONTROLS}
        assert counts == {
            "depthwise-dilated": 6_401_634,
            "depthwise-wide": 36_944_229,
            "untied": 6_401_634 + 3 * 1920 * 9 * (16 * 16 - 1),
            "linear": 6_401_634 + 3 * (1920 * 9 * (4 - 1) + 4 * 16 * 16),
            "coordconv": 6_401_634 + 3 * 2 * 1920,
        }

    @pytest.mark.parametrize("op", EACH_OPERATOR)
    def test_tiny_learns_everywhere(self, op: str) -> None:
        network = build_model(op, **TINY)
        assert parameters(network) < 1_000_000
        logits = network(images())
        assert logits.shape == (2, 2, 64, 64)
        logits.square().mean().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []

    def test_own_convolutions_start_he_normal_and_norms_at_one_and_zero(self) -> None:
        torch.manual_seed(0)
        network = build_model("depthwise", aspp_channels=64)
        own = [m for part in (network.aspp, network.decoder) for m in part.modules()]
        for conv in (m for m in own if isinstance(m, nn.Conv2d)):
            fan_in = conv.weight[0].numel()
            assert conv.weight.square().mean().item() * fan_in == pytest.approx(2, rel=0.25)
        assert all((m.weight == 1).all() and (m.bias == 0).all() for m in own if isinstance(m, nn.BatchNorm2d))
        assert dict(network.decoder.named_parameters())["classify.bias"].tolist() == [0, 0]
        assert [m.p for m in own if isinstance(m, nn.Dropout)] == [0.1]


class TestShapes:
    @pytest.mark.parametrize("op", EACH_OPERATOR)
    def test_networks_take_any_multiple_of_16(self, op: str) -> None:
        network = build_model(op, **TINY)
        assert network(images(80)).shape == (2, 2, 80, 80)
        network.eval()
        with torch.no_grad():
            for height, width in ((48, 80), (16, 16), (160, 32)):
                assert network(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)
            with pytest.raises(ValueError, match=r"images are 50x64: resize or pad both to multiples of 16 \(64x64\)"):
                network(torch.zeros(1, 3, 50, 64))

    def test_branches_are_dilated_where_their_operator_says_so(self) -> None:
        def dilations(op: str) -> list[int]:
            branches = build_model(op, **TINY).aspp.branches
            return [m.dilation[0] for m in branches.modules() if isinstance(m, nn.Conv2d)]

        assert dilations("conv") == [6, 12, 18]
        assert dilations("depthwise-dilated") == [1, 6, 1, 1, 12, 1, 1, 18, 1]
        assert set(dilations("depthwise")) == set(dilations("tvconv")) == {1}

    def test_tvconv_is_built_for_the_expanded_map_at_stride_16(self) -> None:
        tvconvs = [m for m in build_model("tvconv", **TINY | {"expansion": 2}).modules() if isinstance(m, TVConv2d)]
        assert [(m.channels, m.size) for m in tvconvs] == 3 * [(224, (4, 4))]

    def test_widths_and_expansion(self) -> None:
        network = build_model("depthwise", encoder="tu-mobilenetv2_035", image_size=64, aspp_channels=24, expansion=3)
        expand, depthwise, project = (m for m in network.aspp.branches[0].modules() if isinstance(m, nn.Conv2d))
        assert (expand.out_channels, depthwise.groups, project.out_channels) == (336, 336, 24)
        assert network.decoder.classify.in_channels == 24

    @pytest.mark.parametrize("op", ["conv", "depthwise", "tvconv"])
    @pytest.mark.parametrize("encoder", ["resnet34", "tu-mobilenetv3_small_050"])
    def test_other_encoders_at_stride_16(self, op: str, encoder: str) -> None:
        network = build_model(op, **TINY | {"encoder": encoder})
        low, deep = network.encoder(images())
        assert low.shape[2:] == (16, 16)
        assert deep.shape[2:] == (4, 4)
        logits = network(images())
        assert logits.shape == (2, 2, 64, 64)
        logits.square().mean().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []

    def test_photographs_are_scaled_to_plus_minus_one(self) -> None:
        scaled = scale_photographs(torch.tensor([0, 255], dtype=torch.uint8))
        assert scaled.dtype == torch.float32
        assert scaled.tolist() == [-1, 1]


class TestSpec:
    """What rebuilds a network."""

    @pytest.mark.parametrize("op", EACH_OPERATOR)
    def test_the_spec_rebuilds_the_network(self, op: str) -> None:
        network = build_model(op, encoder_weights="none", **TINY)
        assert network.spec == {"op": op, **TINY}
        twin = build_model(**network.spec)  # type: ignore[arg-type]
        twin.load_state_dict(network.state_dict())
        assert twin.spec == network.spec
        with torch.no_grad():
            assert torch.equal(twin.eval()(images()), network.eval()(images()))

    @pytest.mark.parametrize("encoder", ["resnet34", "tu-mobilenetv3_small_050"])
    def test_checkpoints_of_other_encoders(self, encoder: str, tmp_path: Path) -> None:
        network = build_model("tvconv", **TINY | {"encoder": encoder})
        torch.save(network_state(network, {"threshold": 0.75}), tmp_path / "last.ckpt")
        loaded, usage = load_network(tmp_path / "last.ckpt")
        assert loaded.spec == network.spec
        assert usage == {"threshold": 0.75}
        with torch.no_grad():
            assert torch.equal(loaded(images()), network.eval()(images()))


class TestRefusals:
    def test_arguments_that_cannot_be(self) -> None:
        with pytest.raises(UsageError, match="unknown operator 'tvcnov': did you mean 'tvconv'"):
            build_model("tvcnov")
        for size in (250, 0, -16):
            with pytest.raises(UsageError, match=rf"image_size {size} is not a multiple of 16: \d+ is"):
                build_model("conv", image_size=size)
