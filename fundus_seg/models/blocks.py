"""Convolution blocks. Every convolution starts from `kaiming_normal_` (fan-in), every norm from 1 and 0."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def conv2d(
    in_channels: int, out_channels: int, kernel_size: int = 1, *, dilation: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): zero padding dilation·(k // 2), a bias starts at 0."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=bias
    )
    nn.init.kaiming_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 1, *, dilation: int = 1) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): convolution, batch norm, ReLU."""
    return nn.Sequential(
        conv2d(in_channels, out_channels, kernel_size, dilation=dilation),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def inverted_residual(
    in_channels: int, out_channels: int, *, width: int, spatial: Callable[[int], nn.Module]
) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): MobileNetV2's block around any spatial operator, without skip.

    1x1 convolution to `width` channels, `spatial` (given that number, it must keep it and the map's size), 1x1
    convolution to out_channels; batch norm after each, ReLU6 after the first two.
    """
    return nn.Sequential(
        conv2d(in_channels, width),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
        spatial(width),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
        conv2d(width, out_channels),
        nn.BatchNorm2d(out_channels),
    )
