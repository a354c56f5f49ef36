"""Bilinear upsampling whose gradient is deterministic and fast on CUDA.

torch has no deterministic kernel for that gradient: in deterministic mode it gathers four neighbours instead, and the
gradient of the gathering is a sort and a sum, half of a training step. Here the gradient of G is R_h' G R_w, where the
matrices R interpolate rows and columns (benchmarks/gpu.md).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample_bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """Maps x (B, C, h, w) to the size (H, W): `F.interpolate` with half-pixel centres, and its gradient.

    Where torch must be deterministic on CUDA, the gradient is the one of this module, and can be differentiated again.
    """
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        out: Tensor = Upsampling.apply(x, tuple(size))
        return out
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class Upsampling(torch.autograd.Function):
    """`upsample_bilinear` with the gradient of this module, on any device."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps x (B, C, h, w) to (B, C, *size) by torch's own kernel, which is deterministic."""
        ctx.size = x.shape[2:]
        out: Tensor = torch._C._nn.upsample_bilinear2d(x, size, False, None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Maps the gradient (B, C, H, W) to (B, C, h, w) by two products of matrices, in its memory layout."""
        (height, width), (rows, columns) = ctx.size, grad.shape[2:]
        to_rows = _interpolation(height, rows, grad.dtype, grad.device)  # (rows, height)
        to_columns = _interpolation(width, columns, grad.dtype, grad.device)  # (columns, width)
        batch, channels = grad.shape[:2]
        if grad.is_contiguous():  # (B, C, rows, columns)
            planes = (grad.reshape(-1, columns) @ to_columns).view(batch * channels, rows, width)
            out = torch.bmm(to_rows.t().expand(batch * channels, -1, -1), planes)
            return out.view(batch, channels, height, width), None
        lines = grad.permute(0, 2, 3, 1).contiguous().view(batch, rows, columns * channels)
        lines = torch.bmm(to_rows.t().expand(batch, -1, -1), lines)  # (B, height, columns * C)
        lines = lines.view(batch * height, columns, channels)
        out = torch.bmm(to_columns.t().expand(batch * height, -1, -1), lines)  # (B * height, width, C)
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2), None


@functools.cache
def _interpolation(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """R (after, before), which interpolates a line of `before` values at `after` places with half-pixel centres."""
    each = torch.eye(before, dtype=torch.float64)[None]
    return F.interpolate(each, size=after, mode="linear", align_corners=False)[0].t().to(device, dtype)
