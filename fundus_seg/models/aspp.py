"""Atrous spatial pyramid pooling (DeepLabV3+) whose three spatial branches come from a factory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fundus_seg.models.blocks import conv_bn_relu

RATES = (6, 12, 18)
DROPOUT = 0.1

BranchFactory = Callable[[int, int, int], nn.Module]
"""in_channels, out_channels, rate -> a module (B, in_channels, H, W) -> (B, out_channels, H, W)."""


class ASPP(nn.Module):
    """(B, in_channels, H, W) -> (B, channels, H, W): five views of one map, concatenated and projected.

    The views are a 1x1 convolution, a branch of `make_branch` for each of RATES, and the mean over the image; a 1x1
    convolution and dropout follow. Training needs at least two images a batch, because the batch norm of the mean sees
    one value per image.
    """

    def __init__(self, in_channels: int, channels: int, make_branch: BranchFactory) -> None:
        super().__init__()
        self.pointwise = conv_bn_relu(in_channels, channels)
        self.branches = nn.ModuleList(make_branch(in_channels, channels, rate) for rate in RATES)
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(in_channels, channels))
        self.project = projection((len(RATES) + 2) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, in_channels, H, W) to (B, channels, H, W)."""
        pooled = self.pooling(x).expand(-1, -1, *x.shape[2:])
        views = [self.pointwise(x), *(branch(x) for branch in self.branches), pooled]
        out: Tensor = self.project(torch.cat(views, dim=1))
        return out


def projection(in_channels: int, channels: int) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, channels, H, W): what stands before the decoder, a 1x1 convolution and dropout."""
    return nn.Sequential(*conv_bn_relu(in_channels, channels), nn.Dropout(DROPOUT))
