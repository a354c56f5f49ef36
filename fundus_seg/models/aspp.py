"""Atrous spatial pyramid pooling (DeepLabV3+), with the operator of its three spatial branches left open.

The TVConv paper replaces the atrous convolutions by inverted residual blocks around a depthwise convolution or TVConv;
as in its released code, those blocks have no dilation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fundus_seg.models.blocks import conv2d, conv_bn_relu, inverted_residual
from fundus_seg.ops import TVConv2d

RATES = (6, 12, 18)
DROPOUT = 0.1

BranchFactory = Callable[[int, int, int], nn.Module]
"""in_channels, out_channels, rate -> a module (B, in_channels, H, W) -> (B, out_channels, H, W)."""


@dataclass(frozen=True)
class BranchSettings:
    """What an operator may need to know besides the channels and the rate of a branch."""

    size: tuple[int, int]
    """(H, W) of the feature map."""
    expansion: int
    """Of inverted residual blocks."""
    generator_channels: int
    """Width of TVConv's weight generator."""


def atrous_conv(settings: BranchSettings) -> BranchFactory:
    """3x3 atrous convolution, batch norm, ReLU."""
    return lambda in_channels, out_channels, rate: conv_bn_relu(in_channels, out_channels, 3, dilation=rate)


def depthwise_block(settings: BranchSettings) -> BranchFactory:
    """Inverted residual block around a 3x3 depthwise convolution."""
    return _undilated_block(settings, lambda channels: conv2d(channels, channels, 3, groups=channels))


def tvconv_block(settings: BranchSettings) -> BranchFactory:
    """Inverted residual block around a 3x3 TVConv."""
    return _undilated_block(
        settings,
        lambda channels: TVConv2d(
            channels, settings.size, generator_channels=settings.generator_channels, resample="bilinear"
        ),
    )


OPERATORS: dict[str, Callable[[BranchSettings], BranchFactory]] = {
    "conv": atrous_conv,
    "depthwise": depthwise_block,
    "tvconv": tvconv_block,
}


def _undilated_block(settings: BranchSettings, spatial: Callable[[int], nn.Module]) -> BranchFactory:
    return lambda in_channels, out_channels, rate: inverted_residual(
        in_channels, out_channels, expansion=settings.expansion, spatial=spatial
    )


class ASPP(nn.Module):
    """(B, in_channels, H, W) -> (B, channels, H, W): five views of one map, concatenated and projected.

    A 1x1 convolution, a branch of `make_branch` for each of RATES, and the mean over the image; then a 1x1 convolution
    and dropout. Training needs at least two images a batch: the mean's batch norm has one value per image.
    """

    def __init__(self, in_channels: int, channels: int, make_branch: BranchFactory) -> None:
        super().__init__()
        self.pointwise = conv_bn_relu(in_channels, channels)
        self.branches = nn.ModuleList(make_branch(in_channels, channels, rate) for rate in RATES)
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(in_channels, channels))
        self.project = nn.Sequential(*conv_bn_relu((len(RATES) + 2) * channels, channels), nn.Dropout(DROPOUT))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, in_channels, H, W) to (B, channels, H, W)."""
        pooled = self.pooling(x).expand(-1, -1, *x.shape[2:])
        views = [self.pointwise(x), *(branch(x) for branch in self.branches), pooled]
        out: Tensor = self.project(torch.cat(views, dim=1))
        return out
