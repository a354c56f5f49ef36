"""TVConv as its equations read, to measure against: `unfold` copies the input k² times, every call generates kernels.

The paper's released code works like this; no code is copied from it.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.models import build_model
from fundus_seg.ops import TVConv2d


def naive_translation_variant_conv2d(x: Tensor, weight: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w): unfold, multiply, sum."""
    k = math.isqrt(weight.shape[1])
    patches = F.unfold(x, k, dilation=dilation, padding=dilation * (k // 2), stride=stride)
    return (patches.view(len(x), *weight.shape) * weight.to(x.dtype)).sum(2)


class NaiveTVConv2d(TVConv2d):
    """TVConv2d with the naive operator and without a cache."""

    def forward(self, x: Tensor) -> Tensor:
        self.drop_kernel_cache()
        return naive_translation_variant_conv2d(x, self.kernel(), stride=self.stride)


def naive_network(**options: object) -> nn.Module:
    """The network of operator `tvconv`, with NaiveTVConv2d in place of TVConv2d."""
    network = build_model("tvconv", **options)
    for module in network.modules():
        if isinstance(module, TVConv2d):
            module.__class__ = NaiveTVConv2d  # the same parameters, another forward
    return network
