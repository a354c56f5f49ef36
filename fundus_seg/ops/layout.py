"""The two memory layouts that the operator's backends know.

- contiguous: maps (B, C, h, w) and kernels (C, k·k, h, w) as they read;
- channels last: maps lie as (B, h, w, C), kernels as (h, w, k·k, C), so that channels are side by side in both.

A tensor keeps its logical shape in either; only its strides differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether a map (B, C, h, w) lies channels last; a map that fits both layouts counts as contiguous."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def map_in(x: Tensor, channels_last: bool) -> Tensor:
    """A map (B, C, h, w) in the layout."""
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def kernel_in(weight: Tensor, channels_last: bool) -> Tensor:
    """A kernel (C, k·k, h, w) in the layout."""
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1) if channels_last else weight.contiguous()


def empty_map_like(x: Tensor, size: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """(B, C, h, w) in the layout of x (B, C, ..), with (h, w) = size; the dtype of x unless given."""
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty(*x.shape[:2], *size, dtype=dtype or x.dtype, device=x.device, memory_format=memory_format)


def empty_kernel_like(x: Tensor, k: int, dtype: torch.dtype | None = None) -> Tensor:
    """(C, k·k, h, w) in the layout of x (B, C, h, w); the dtype of x unless given."""
    channels, height, width = x.shape[1:]
    if is_channels_last(x):
        return x.new_empty(height, width, k * k, channels, dtype=dtype).permute(3, 2, 0, 1)
    return x.new_empty(channels, k * k, height, width, dtype=dtype)
