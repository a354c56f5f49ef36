"""The operator and its two gradients as operators of torch, each computed by the first backend that can.

As such `torch.compile` and `torch.export` keep them whole. What differentiates them is `fundus_seg.ops.autograd`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from fundus_seg.ops import native, portable
from fundus_seg.ops.layout import empty_kernel_like, empty_map_like, is_channels_last, kernel_in, map_in


def backend(x: Tensor) -> ModuleType:
    """The module that computes with tensors of this device and dtype: the first that supports them."""
    fused = _triton_backend() if x.is_cuda else native
    return fused if fused is not None and fused.supports(x) else portable


@functools.cache
def _triton_backend() -> ModuleType | None:
    """Imported with the first tensor on a GPU: Triton is slow to import, and not there on every system."""
    try:
        from fundus_seg.ops import triton_backend
    except ImportError:
        return None
    return triton_backend


@torch.library.custom_op("fundus_seg::translation_variant_conv2d", mutates_args=())
def forward(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w), in the layout of x."""
    last = is_channels_last(x)
    compute = backend(x).forward
    return compute(map_in(x, last), kernel_in(weight, last), k, stride, dilation)


@torch.library.custom_op("fundus_seg::translation_variant_conv2d_grad_x", mutates_args=())
def grad_x(grad: Tensor, weight: Tensor, size: Sequence[int], k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), weight (C, k·k, h, w), size (H, W) -> (B, C, H, W), in the layout of grad."""
    last = is_channels_last(grad)
    compute = backend(grad).grad_x
    return compute(map_in(grad, last), kernel_in(weight, last), size, k, stride, dilation)


@torch.library.custom_op("fundus_seg::translation_variant_conv2d_grad_weight", mutates_args=())
def grad_weight(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), x (B, C, H, W) -> (C, k·k, h, w), in the layout of grad."""
    last = is_channels_last(grad)
    compute = backend(grad).grad_weight
    return compute(map_in(grad, last), map_in(x, last), k, stride, dilation)


@forward.register_fake
def _(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    return empty_map_like(x, weight.shape[2:])


@grad_x.register_fake
def _(grad: Tensor, weight: Tensor, size: Sequence[int], k: int, stride: int, dilation: int) -> Tensor:
    return empty_map_like(grad, size)


@grad_weight.register_fake
def _(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    return empty_kernel_like(grad, k)
