"""The light networks of the TVConv paper, with any operator in their depthwise slots."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fundus_seg.builtins import ANNEALED, OPERATORS, positional_part
from fundus_seg.errors import CheckpointError, UsageError
from fundus_seg.models import bake, build_model
from fundus_seg.models.backbones import Backbone, Embedder, mobilenet_v2, shufflenet_v2
from fundus_seg.models.checkpoint import load_network, network_state, write_checkpoint
from fundus_seg.models.encoders import build_encoder, encoder_shapes
from fundus_seg.models.shapes import without_numbers
from fundus_seg.models.slots import SLOTS, Thinned
from fundus_seg.ops import TVConv2d
from fundus_seg.profiling import Macs, count_macs
from fundus_seg.torchvision_compat import import_module

PAPER = [
    (mobilenet_v2, 0.1, 22.47),
    (mobilenet_v2, 0.2, 28.00),
    (mobilenet_v2, 0.3, 44.20),
    (mobilenet_v2, 0.5, 74.03),
    (mobilenet_v2, 1.0, 225.72),
    (shufflenet_v2, 0.5, 31.95),
    (shufflenet_v2, 1.0, 110.53),
    (shufflenet_v2, 1.5, 222.99),
]
"""Millions of MACs at 96x96 in the paper's tables."""
SMALL = partial(TVConv2d, affinity_channels=2, generator_channels=2, generator_layers=0, resample="bilinear")


def small_tvconv(channels: int, size: tuple[int, int], stride: int) -> nn.Module:
    return SMALL(channels, size, stride=stride)


@pytest.mark.parametrize(
    ("make", "width", "millions"),
    [
        pytest.param(*each, marks=[] if each[1:] in {(0.1, 22.47), (1.5, 222.99)} else pytest.mark.slow)
        for each in PAPER
    ],
)
def test_macs_are_those_of_the_paper(make: Any, width: float, millions: float) -> None:
    with without_numbers():
        macs = count_macs(Embedder(make(width)).eval(), 96, elementwise=True)
    assert macs.generation == 0
    assert round(macs.image / 1e6, 2) == millions


def test_tvconv_costs_what_depthwise_costs_once_its_kernels_are_there() -> None:
    plain, tvconv = (
        count_macs(Embedder(shufflenet_v2(0.5, operator, image_size=32)).eval(), 32)
        for operator in ("depthwise", small_tvconv)
    )
    assert tvconv.image == plain.image
    assert tvconv.generation > plain.generation == 0


def test_element_by_element_means_what_the_docstring_says() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()
    assert count_macs(network, 2) == Macs(image=3 * 4 * 4 + 4 * 5, generation=0)
    norm, relu, pooling, bias = 2 * 16, 16, 16, 5
    expected = 3 * 4 * 4 + 4 * 5 + norm + relu + pooling + bias
    assert count_macs(network, 2, elementwise=True) == Macs(image=expected, generation=0)


class TestShapes:
    @pytest.mark.parametrize(
        ("make", "channels"), [(mobilenet_v2, [8, 8, 8, 16, 32]), (partial(shufflenet_v2, 0.5), [24, 24, 48, 96, 192])]
    )
    def test_of_the_first_stride_1(self, make: Any, channels: list[int]) -> None:
        backbone = make(0.1) if make is mobilenet_v2 else make()
        maps = backbone.eval()(torch.zeros(1, 3, 32, 16))
        assert [each.shape[1] for each in maps] == channels
        assert [tuple(each.shape[2:]) for each in maps] == [(32 // s, 16 // s) for s in (1, 2, 4, 8, 16)]

    def test_of_the_first_stride_2(self) -> None:
        maps = mobilenet_v2(0.1, first_stride=2).eval()(torch.zeros(1, 3, 64, 64))
        assert [each.shape[-1] for each in maps] == [64, 32, 16, 8, 4, 2]
        assert maps[0].shape[1] == 3

    @pytest.mark.parametrize("name", [name for name in SLOTS if name not in ("untied", "linear")])
    def test_every_operator_stands_in_strided_slots_too(self, name: str) -> None:
        backbone = mobilenet_v2(0.1, name, image_size=16, stages=["s7", "s6"]).eval()
        with torch.no_grad():
            assert backbone(torch.randn(1, 3, 16, 16))[-1].shape == (1, 32, 1, 1)
            assert backbone(torch.randn(1, 3, 48, 32))[-1].shape == (1, 32, 3, 2)

    def test_every_operator_of_one_map_is_in_the_table(self) -> None:
        elsewhere = {"conv", "depthwise-dilated", "depthwise-wide", "coordconv", "dyconv-pw", "mlp-mixer"}
        assert {"depthwise", *SLOTS} == OPERATORS.keys() - elsewhere

    def test_thinning_is_a_stride(self) -> None:
        conv, strided = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1, stride=2)
        strided.load_state_dict(conv.state_dict())
        x = torch.randn(1, 2, 7, 6)
        torch.testing.assert_close(Thinned(2)(conv(x)), strided(x))


class TestStages:
    @staticmethod
    def channels(backbone: Backbone) -> list[int]:
        return [each.channels for each in backbone.modules() if isinstance(each, TVConv2d)]

    def test_each_alone_and_all(self) -> None:
        with without_numbers():
            alone = [self.channels(mobilenet_v2(1.0, small_tvconv, stages=[f"s{number}"])) for number in range(1, 8)]
            whole = self.channels(mobilenet_v2(1.0, small_tvconv))
        assert alone == [[32], [96, 144], [144, 192, 192], [192, *[384] * 3], [384, 576, 576], [576, 960, 960], [960]]
        assert whole == [*itertools.chain(*alone)]

    def test_of_shufflenet(self) -> None:
        with without_numbers():
            alone = [self.channels(shufflenet_v2(1.0, small_tvconv, stages=[f"s{number}"])) for number in (2, 3, 4)]
        assert alone == [[24, *[58] * 4], [116, *[116] * 8], [232, *[232] * 4]]

    def test_sizes_are_those_of_the_maps(self) -> None:
        with without_numbers():
            sizes = [
                each.size[0]
                for each in mobilenet_v2(0.1, small_tvconv, image_size=96).modules()
                if isinstance(each, TVConv2d)
            ]
        assert sizes == [96, *[48] * 2, *[24] * 3, *[12] * 7, *[6] * 4]

    def test_refusals(self) -> None:
        with pytest.raises(UsageError, match=r"unknown stage 's8': did you mean 's[1-7]'\?"):
            mobilenet_v2(0.1, "tvconv", stages=["s8"])
        with pytest.raises(UsageError, match=r"unknown depthwise operator 'tvcnv': did you mean 'tvconv'\?"):
            mobilenet_v2(0.1, "tvcnv")
        with pytest.raises(UsageError, match=r"no width 0\.6: take 0\.5, 1, 1\.5, 2"):
            shufflenet_v2(0.6)
        for width in (0, 5):
            with pytest.raises(UsageError, match="above 0, at most 4"):
                mobilenet_v2(width)


@pytest.mark.parametrize("make", [partial(mobilenet_v2, 0.1), partial(shufflenet_v2, 0.5)])
def test_gradients_reach_every_parameter(make: Any) -> None:
    network = Embedder(make(small_tvconv, image_size=32), dimensions=4)
    network(torch.randn(2, 3, 32, 32)).square().mul(torch.randn(2, 4)).sum().backward()
    idle = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert not idle


class TestAsEncoder:
    @pytest.mark.parametrize(
        ("name", "low", "deep"), [("tvconv-mobilenetv2-0.1", 8, 32), ("tvconv-shufflenetv2-0.5-s3+s4", 24, 192)]
    )
    def test_a_checkpoint_gives_the_same_masks(self, tmp_path: Path, name: str, low: int, deep: int) -> None:
        network = build_model(
            "depthwise", encoder=name, image_size=32, aspp_channels=8, expansion=1, generator_channels=4
        ).eval()
        assert (network.encoder.low_channels, network.encoder.deep_channels) == (low, deep)
        write_checkpoint(tmp_path / "last.ckpt", network_state(network, {}))
        again, _ = load_network(tmp_path / "last.ckpt")
        images = torch.randn(1, 3, 64, 48)  # of another size than the kernels
        with torch.no_grad():
            assert torch.equal(again(images), network(images))
            torch.testing.assert_close(bake(network)(images), network(images), rtol=1e-3, atol=1e-4)

    def test_shapes_without_numbers(self) -> None:
        name = "tvconv-mobilenetv2-0.1-s6+s7"
        built = {key: tuple(value.shape) for key, value in build_encoder(name, image_size=32).state_dict().items()}
        assert encoder_shapes(name, image_size=32) == built

    def test_weights_have_the_names_of_torchvision(self, tmp_path: Path) -> None:
        module = import_module("torchvision.models.shufflenetv2", compiler=False)
        state = module.shufflenet_v2_x0_5().state_dict()
        torch.save(state, tmp_path / "weights.pth")
        loaded = build_encoder("depthwise-shufflenetv2-0.5", tmp_path / "weights.pth").body.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())

    def test_refusals(self) -> None:
        with pytest.raises(CheckpointError, match=r"no ImageNet weights for encoder 'tvconv-mobilenetv2-0\.5'.*=none"):
            build_encoder("tvconv-mobilenetv2-0.5", "imagenet")
        with pytest.raises(UsageError, match=r"unknown encoder 'tvconv-mobilenetv3-0\.5'"):
            build_encoder("tvconv-mobilenetv3-0.5")
        for operator in set(ANNEALED) & SLOTS.keys():
            with pytest.raises(UsageError, match="in the ASPP alone"):
                build_encoder(f"{operator}-mobilenetv2-0.5")

    def test_what_knows_positions(self) -> None:
        assert positional_part("conv", "tvconv-mobilenetv2-0.5") == "tvconv-mobilenetv2-0.5"
        assert positional_part("tvconv", "mobilenet_v2") == "tvconv"
        assert positional_part("depthwise", "depthwise-mobilenetv2-0.5") is None
