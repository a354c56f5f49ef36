"""An experiment that no run uses: bilinear upsampling whose gradient is deterministic and fast on CUDA.

torch has no deterministic kernel for that gradient. In deterministic mode it gathers four neighbours instead, and the
gradient of the gathering is a sort and a sum. Here the forward pass is torch's own kernel, and the gradient is
R_h' G R_w, where the matrices R interpolate the rows and the columns.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.models import deeplab


@contextlib.contextmanager
def upsampled_by_us() -> Iterator[None]:
    """Within it, the network uses this upsampling."""
    with patch.object(deeplab, "_resize", own_resize):
        yield


def own_resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear upsampling of x (B, C, h, w) to the size (H, W)."""
    out: Tensor = _Upsampling.apply(x, tuple(size))
    return out


class _Upsampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size = x.shape[2:]
        out: Tensor = torch._C._nn.upsample_bilinear2d(x, size, False, None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (height, width), (rows, columns) = ctx.size, grad.shape[2:]
        to_rows = interpolation(height, rows, grad.dtype, grad.device)  # (rows, height)
        to_columns = interpolation(width, columns, grad.dtype, grad.device)  # (columns, width)
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
def interpolation(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix (after, before) that interpolates a line of `before` values at `after` places."""
    each = torch.eye(before, dtype=torch.float64)[None]
    return F.interpolate(each, size=after, mode="linear", align_corners=False)[0].t().to(device, dtype)
