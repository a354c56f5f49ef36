"""The plain convolution of every network here: its start is part of what operators are compared by."""

from __future__ import annotations

from torch import nn


def conv2d(
    in_channels: int, out_channels: int, kernel_size: int = 1, *, dilation: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): zero padding dilation·(k // 2).

    The weights start from `kaiming_normal_` (fan-in), a bias at 0.
    """
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=bias
    )
    nn.init.kaiming_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
