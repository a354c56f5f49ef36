"""DDF2d: a filter per position times a filter per channel, both made from the image.

J. Zhou et al., *Decoupled Dynamic Filter Networks*, CVPR 2021.

    O[c, i] = Σ_t D̂^sp[t, i] D̂^ch[c, t] X[c, i + t]                         (Eq. 3)  t: taps of a k x k window
    D^sp[:, i] = W_sp X[:, i] + b                                             k² values a position
    D^ch = W_2 ReLU(W_1 mean(X))                                              k² values a channel; σ C between
    D̂ = α (D - mean(D)) / std(D) + β                                         (Eq. 4)  mean and std over the taps

k = 3 and σ = 0.2, as in the paper; α and β are one number each for all positions, and one for each channel. Where it
departs from the paper: they start so that the product of both filters has the variance of a He-normal depthwise kernel,
and 1e-5 is added to the variance of a filter.

The authors' code is a CUDA kernel. Here one pass per tap multiplies a shifted view into the sum; neither windows of the
input nor the product of both filters, k² maps of the input's size, are ever written. On a GPU all taps are one pass, by
the kernels of `ddf_triton`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fundus_seg.ops.compared.per_image import image_mean
from fundus_seg.ops.dispatch import declare, has_triton
from fundus_seg.ops.functional import convolved_dtype
from fundus_seg.ops.layout import empty_map_like
from fundus_seg.ops.plain import conv2d
from fundus_seg.ops.portable import accumulator, taps


class DDF2d(nn.Module):
    """Decoupled dynamic filter (DDF, CVPR 2021, Eq. 3 and 4).

    x: (B, C, H, W) -> (B, C, H, W), of any size, with zero padding k // 2. It can be differentiated once.

    Args:
        channels: C.
        kernel_size: k, odd.
        reduction: σ; the hidden layer of the channels' filters has σ C values, at least 1.
    """

    def __init__(self, channels: int, kernel_size: int = 3, *, reduction: float = 0.2) -> None:
        super().__init__()
        hidden = max(1, int(reduction * channels))
        self.spatial = conv2d(channels, kernel_size**2, bias=True)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels * kernel_size**2)
        )
        self.spatial_scale, self.spatial_shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.channel_scale = nn.Parameter(torch.full((channels,), math.sqrt(2) / kernel_size))
        self.channel_shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        spatial = _normalised(self.spatial(x), 1) * self.spatial_scale + self.spatial_shift  # (B, k², H, W)
        channel = _normalised(self.channel(image_mean(x)).unflatten(1, (x.shape[1], -1)), 2)  # (B, C, k²)
        channel = channel * self.channel_scale[:, None] + self.channel_shift[:, None]
        dtype = convolved_dtype(x)
        out: Tensor = _Decoupled.apply(x.to(dtype), spatial.to(dtype), channel.to(dtype))
        return out


def _normalised(filters: Tensor, dim: int) -> Tensor:
    """Filters whose taps, along `dim`, have mean 0 and variance 1."""
    rows = filters.movedim(dim, -1)
    return F.layer_norm(rows, rows.shape[-1:]).movedim(-1, dim)


class _Decoupled(Function):
    """Maps x (B, C, H, W), spatial (B, k·k, H, W), channel (B, C, k·k) -> (B, C, H, W) (Eq. 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spatial: Tensor, channel: Tensor) -> Tensor:
        ctx.save_for_backward(x, spatial, channel)
        k = math.isqrt(channel.shape[2])
        out: Tensor = decoupled_filter(x, spatial, channel, k, 1, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, spatial, channel = ctx.saved_tensors
        k = math.isqrt(channel.shape[2])
        gradients: tuple[Tensor, Tensor, Tensor] = decoupled_filter_backward(grad, x, spatial, channel, k, 1, 1)
        return gradients


def _forward(x: Tensor, spatial: Tensor, channel: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    if has_triton(x):
        from fundus_seg.ops.compared import ddf_triton

        return ddf_triton.forward(x, spatial, channel, k, stride, dilation)
    out = empty_map_like(x, spatial.shape[2:], accumulator(x.dtype)).zero_()
    for tap, (rows, cols), (x_rows, x_cols) in taps(k, x.shape[2:], spatial.shape[2:], stride, dilation):
        shifted = x[:, :, x_rows, x_cols] * channel[:, :, tap, None, None]
        out[:, :, rows, cols].addcmul_(shifted, spatial[:, tap, None, rows, cols])
    return out.to(x.dtype)


def _backward(
    grad: Tensor, x: Tensor, spatial: Tensor, channel: Tensor, k: int, stride: int, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    if has_triton(x):
        from fundus_seg.ops.compared import ddf_triton

        return ddf_triton.backward(grad, x, spatial, channel, k, stride, dilation)
    to_x = empty_map_like(x, x.shape[2:], accumulator(x.dtype)).zero_()
    to_spatial, to_channel = torch.zeros_like(spatial), torch.zeros_like(channel)
    for tap, (rows, cols), (x_rows, x_cols) in taps(k, x.shape[2:], grad.shape[2:], stride, dilation):
        some = grad[:, :, rows, cols]
        by_position, by_channel = spatial[:, tap, None, rows, cols], channel[:, :, tap, None, None]
        to_x[:, :, x_rows, x_cols].addcmul_(some * by_position, by_channel)
        product = some * x[:, :, x_rows, x_cols]
        to_spatial[:, tap, rows, cols] = (product * by_channel).sum(dim=1)
        to_channel[:, :, tap] = product.mul_(by_position).sum(dim=(2, 3))
    return to_x.to(x.dtype), to_spatial, to_channel


decoupled_filter = declare(
    "decoupled_filter",
    "Tensor x, Tensor spatial, Tensor channel",
    _forward,
    lambda x, spatial, *_: empty_map_like(x, spatial.shape[2:]),
)
"""Maps x (B, C, H, W), spatial (B, k·k, H, W), channel (B, C, k·k) -> (B, C, H, W), in the layout of x."""
decoupled_filter_backward = declare(
    "decoupled_filter_backward",
    "Tensor grad, Tensor x, Tensor spatial, Tensor channel",
    _backward,
    lambda grad, x, spatial, channel, *_: (
        empty_map_like(x, x.shape[2:]),
        torch.empty_like(spatial),
        torch.empty_like(channel),
    ),
    "(Tensor, Tensor, Tensor)",
)
"""Maps the gradient of the output and the operands to the gradients of x, spatial and channel, laid out as they are."""
