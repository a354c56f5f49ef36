"""WeightNet2d: a fully connected layer, in groups, makes the kernel of each image from an activation vector.

N. Ma et al., *WeightNet: Revisiting the Design Space of Weight Networks*, ECCV 2020.

    α = σ(W_fc1 · mean of x over positions)         M·C values, through C / r hidden ones
    W = W_fc2 ⊗ α                                   grouped: each channel's kernel from its own M values

M = 2 and r = 16, as in the paper. Where this departs from the paper:

- The paper cuts W_fc2 into G·C groups with G = 2. The nine weights of a depthwise kernel cannot be cut into two groups,
  so G = 1: the kernel of a channel is the sum of M learned kernels, weighted by its M activations.
- W_fc2 starts He-normal for the kernel that it makes at α = 1/2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fundus_seg.ops.compared.per_image import image_mean, per_image_depthwise


class WeightNet2d(nn.Module):
    """Depthwise convolution, W = W_fc2 ⊗ σ(W_fc1 · mean(x)) for each image (WeightNet, ECCV 2020); no bias.

    x: (B, C, H, W) -> (B, C, H, W), of any size, with zero padding k // 2.

    Args:
        channels: C.
        kernel_size: k, odd.
        inputs: M, the activations that each channel's kernel is made from.
        reduction: r; the hidden layer has C // r values, at least 1.
    """

    def __init__(self, channels: int, kernel_size: int = 3, *, inputs: int = 2, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.activation = nn.Sequential(nn.Linear(channels, hidden), nn.Linear(hidden, inputs * channels), nn.Sigmoid())
        self.kernels = nn.Parameter(torch.empty(channels, inputs, kernel_size**2))
        nn.init.normal_(self.kernels, std=2 * math.sqrt(2 / inputs) / kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        alpha = self.activation(image_mean(x)).unflatten(1, self.kernels.shape[:2])  # (B, C, M)
        return per_image_depthwise(x, torch.einsum("bcm,cmt->bct", alpha, self.kernels))
