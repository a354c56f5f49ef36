"""DYConv: each image attends to a few kernels, whose mean is its own; for depthwise and for pointwise convolutions.

Y. Chen et al., *Dynamic Convolution: Attention over Convolution Kernels*, CVPR 2020.

    y = W̃ᵀ x + b̃,  W̃ = Σ_k π_k W_k,  b̃ = Σ_k π_k b_k               (Eq. 2)
    π = softmax(z / τ),  z = FC(ReLU(FC(mean of x over positions)))   (Eq. 5)  Σ_k π_k = 1

K = 4 kernels and C / 4 hidden values, as in the paper. A high temperature τ makes the attention nearly uniform, so that
all kernels learn at first; in the paper it falls from 30 to 1 over the first ten epochs. Here τ is a buffer, which lies
in the checkpoint beside the weights, and the training sets it before each epoch (`set_temperature`). Batch norm and
activation, which the paper counts as a part of the operator, stand behind it in the block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fundus_seg.ops.compared.per_image import image_mean, per_image_depthwise, per_image_pointwise

TEMPERATURE = 30.0
_KERNELS = 4
_REDUCTION = 4


class _KernelAttention(nn.Module):
    """(B, C, H, W) -> (B, K): how much each kernel counts in each image (Eq. 5); the sum over K is 1."""

    temperature: Tensor

    def __init__(self, channels: int, kernels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.scores = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, kernels))
        self.register_buffer("temperature", torch.tensor(TEMPERATURE))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, K)."""
        weights: Tensor = (self.scores(image_mean(x)) / self.temperature).softmax(dim=1)
        return weights


class DYConvDepthwise2d(nn.Module):
    """Depthwise convolution by dynamic kernels (DYConv, CVPR 2020, Eq. 2).

    x: (B, C, H, W) -> (B, C, H, W), of any size, with zero padding k // 2.

    Args:
        channels: C.
        kernel_size: k, odd.
        kernels: K.
        reduction: the hidden layer of the attention has C // reduction values, at least 1.
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, *, kernels: int = _KERNELS, reduction: int = _REDUCTION
    ) -> None:
        super().__init__()
        self.attention = _KernelAttention(channels, kernels, reduction)
        self.weight = nn.Parameter(torch.empty(kernels, channels, kernel_size**2))
        nn.init.normal_(self.weight, std=math.sqrt(2) / kernel_size)  # He-normal: fan-in k²
        self.bias = nn.Parameter(torch.zeros(kernels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        pi = self.attention(x)
        weight = (pi @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])  # (B, C, k²)
        return per_image_depthwise(x, weight) + (pi @ self.bias)[:, :, None, None]


class DYConvPointwise2d(nn.Module):
    """1x1 convolution by dynamic kernels (DYConv, CVPR 2020, Eq. 2).

    x: (B, in_channels, H, W) -> (B, out_channels, H, W), of any size.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        kernels: K.
        reduction: the hidden layer of the attention has in_channels // reduction values, at least 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernels: int = _KERNELS, reduction: int = _REDUCTION
    ) -> None:
        super().__init__()
        self.attention = _KernelAttention(in_channels, kernels, reduction)
        self.weight = nn.Parameter(torch.empty(kernels, out_channels, in_channels))
        nn.init.normal_(self.weight, std=math.sqrt(2 / in_channels))  # He-normal
        self.bias = nn.Parameter(torch.zeros(kernels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, in_channels, H, W) to (B, out_channels, H, W)."""
        pi = self.attention(x)
        weight = (pi @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])  # (B, C_out, C_in)
        return per_image_pointwise(x, weight) + (pi @ self.bias)[:, :, None, None]


def set_temperature(network: nn.Module, temperature: float) -> None:
    """Set τ in every DYConv of a network; nothing happens in a network without one."""
    for module in network.modules():
        if isinstance(module, _KernelAttention):
            module.temperature.fill_(temperature)
