"""The plain convolution of every network here: its start is part of what operators are compared by."""

from __future__ import annotations

from typing import Literal

from torch import nn


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    padding_mode: Literal["zeros", "replicate"] = "zeros",
) -> nn.Conv2d:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): padding dilation·(k // 2), by zeros or by the nearest value.

    The weights start from `kaiming_normal_` (fan-in), a bias at 0.
    """
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
        padding_mode=padding_mode,
    )
    nn.init.kaiming_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
