"""Convolutions in which each image has a kernel of its own, which it shares over all positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.ops.layout import is_channels_last


def image_mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C): the mean over the positions, from which kernels per image are made."""
    return x.mean(dim=(2, 3))


def per_image_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Depthwise convolution with zero padding: x (B, C, H, W), weight (B, C, k·k), k odd -> (B, C, H, W).

    The images become further channels of one image, in a single grouped convolution. A map that lies channels last is
    convolved image by image instead, since it would have to be transposed twice. The result lies as x does.
    """
    batch, channels, height, width = x.shape
    k = round(weight.shape[2] ** 0.5)
    kernels = weight.reshape(batch * channels, 1, k, k)
    if is_channels_last(x):
        pairs = zip(x.split(1), kernels.split(channels), strict=True)
        return torch.cat([F.conv2d(image, kernel, padding=k // 2, groups=channels) for image, kernel in pairs])
    maps = x.reshape(1, batch * channels, height, width)
    return F.conv2d(maps, kernels, padding=k // 2, groups=batch * channels).view(x.shape)


def per_image_pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution: x (B, C_in, H, W), weight (B, C_out, C_in) -> (B, C_out, H, W), which lies as x does."""
    height, width = x.shape[2:]
    if is_channels_last(x):
        lines = torch.bmm(x.permute(0, 2, 3, 1).flatten(1, 2), weight.transpose(1, 2))  # (B, H·W, C_out)
        return lines.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return torch.bmm(weight, x.flatten(2)).unflatten(2, (height, width))
