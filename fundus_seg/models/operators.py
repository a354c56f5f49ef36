"""What the three spatial branches of the ASPP are made of.

The TVConv paper replaces the ASPP's atrous convolutions by inverted residual blocks around a depthwise convolution or
TVConv; as in its released code, those blocks have no dilation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fundus_seg.models.aspp import BranchFactory
from fundus_seg.models.blocks import conv2d, conv_bn_relu, inverted_residual
from fundus_seg.ops import TVConv2d


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
    return _block(settings, lambda width, rate: _depthwise(width))


def tvconv_block(settings: BranchSettings) -> BranchFactory:
    """Inverted residual block around a 3x3 TVConv."""
    return _block(
        settings, lambda width, rate: TVConv2d(width, settings.size, generator_channels=settings.generator_channels)
    )


OPERATORS: dict[str, Callable[[BranchSettings], BranchFactory]] = {
    "conv": atrous_conv,
    "depthwise": depthwise_block,
    "tvconv": tvconv_block,
}


def _block(settings: BranchSettings, spatial: Callable[[int, int], nn.Module]) -> BranchFactory:
    """Inverted residual blocks of the settings' expansion around `spatial(width, rate)`."""
    return lambda in_channels, out_channels, rate: inverted_residual(
        in_channels, out_channels, width=settings.expansion * in_channels, spatial=lambda width: spatial(width, rate)
    )


def _depthwise(width: int, dilation: int = 1) -> nn.Module:
    return conv2d(width, width, 3, dilation=dilation, groups=width)
