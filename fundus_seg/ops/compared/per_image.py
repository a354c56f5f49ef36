"""Convolutions in which each image has a kernel of its own, which it shares over all positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.ops.layout import is_channels_last


def image_mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C): the mean over the positions, from which kernels per image are made."""
    return x.mean(dim=(2, 3))


def per_image_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Depthwise convolution with zero padding: x (B, C, H, W), weight (B, C, k·k), k odd -> (B, C, H, W).

    One convolution for each image: with the images as further channels of a single grouped convolution, as others write
    it, a map that lies channels last would be transposed twice, and any map takes twice as long on a CPU. The result
    lies as x does.
    """
    channels, k = x.shape[1], math.isqrt(weight.shape[2])
    pairs = zip(x.split(1), weight.unflatten(2, (1, k, k)), strict=True)
    return torch.cat([F.conv2d(image, kernel, padding=k // 2, groups=channels) for image, kernel in pairs])


def per_image_pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution: x (B, C_in, H, W), weight (B, C_out, C_in) -> (B, C_out, H, W), which lies as x does."""
    height, width = x.shape[2:]
    if is_channels_last(x):
        lines = torch.bmm(x.permute(0, 2, 3, 1).flatten(1, 2), weight.transpose(1, 2))  # (B, H·W, C_out)
        return lines.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return torch.bmm(weight, x.flatten(2)).unflatten(2, (height, width))
