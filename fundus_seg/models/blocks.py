"""Blocks of layers. Every convolution starts from `kaiming_normal_` (fan-in), every norm from scale 1 and shift 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fundus_seg.ops.plain import conv2d


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 1, *, dilation: int = 1) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): convolution, batch norm, ReLU."""
    return nn.Sequential(
        conv2d(in_channels, out_channels, kernel_size, dilation=dilation),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def depthwise(width: int, dilation: int = 1) -> nn.Conv2d:
    """(B, width, H, W) -> (B, width, H, W): 3x3 depthwise convolution."""
    return conv2d(width, width, 3, dilation=dilation, groups=width)


def inverted_residual(
    in_channels: int,
    out_channels: int,
    width: int,
    spatial: Callable[[int], nn.Module],
    pointwise: Callable[[int, int], nn.Module] = conv2d,
) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): MobileNetV2's block around a spatial operator, without skip.

    A 1x1 convolution to `width` channels, `spatial(width)`, and a 1x1 convolution to out_channels; batch norm after
    each, ReLU6 after the first two. `pointwise(in, out)` makes the 1x1 convolutions. Both are called, not given as
    modules, so that random numbers are drawn in the order of the layers. What `spatial` makes must keep the number of
    channels and the size of the map.
    """
    return nn.Sequential(
        pointwise(in_channels, width),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
        spatial(width),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
        pointwise(width, out_channels),
        nn.BatchNorm2d(out_channels),
    )


def separable(in_channels: int, out_channels: int, spatial: nn.Module) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, out_channels, H, W): the separable convolution of DeepLabV3+ around an operator.

    L.-C. Chen et al., *Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation*, ECCV 2018:
    `spatial`, which keeps channels and size, then a 1x1 convolution; batch norm and ReLU after each.
    """
    return nn.Sequential(
        spatial, nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), *conv_bn_relu(in_channels, out_channels)
    )


class AddCoords(nn.Module):
    """x: (B, C, H, W) -> (B, C + 2, H, W): appends the row and the column of each position, from -1 to 1, as channels.

    R. Liu et al., *An intriguing failing of convolutional neural networks and the CoordConv solution*, NeurIPS 2018; a
    convolution behind it is their CoordConv. It has no parameters and takes maps of any size; along a side of one
    position the coordinate is -1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C + 2, H, W)."""
        height, width = x.shape[-2:]
        rows = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)
        columns = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device)
        coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return torch.cat([x, coordinates.expand(x.shape[0], -1, -1, -1)], dim=1)


def count_parameters(module: nn.Module) -> int:
    """Number of values in all parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_trained(module: nn.Module) -> int:
    """Number of values in those parameters of a module that training changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
