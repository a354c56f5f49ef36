"""Derivatives of the operator.

The operator and its two gradients are linear in each operand, and the gradients of each of the three are the other
two. So the three suffice for derivatives of any order, and for `torch.func.grad` and `torch.vmap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function

from fundus_seg.ops import dispatch

_Dims = tuple[int | None, ...]
_Grads = tuple[Tensor | None, ...]


def convolve(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w), differentiable."""
    out: Tensor = _Forward.apply(x, weight, k, stride, dilation)
    return out


def correlate(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), x (B, C, H, W) -> (C, k·k, h, w), the products of `convolve`'s terms; differentiable."""
    out: Tensor = _GradWeight.apply(grad, x, k, stride, dilation)
    return out


class _Bilinear(Function):
    """A function of two tensors and the geometry that is linear in each tensor."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save each tensor only if the gradient of the other one is needed, since that reads it."""
        a, b, *ctx.geometry = inputs
        ctx.shapes = a.shape, b.shape
        a_needs_grad, b_needs_grad = ctx.needs_input_grad[:2]
        ctx.save_for_backward(a if b_needs_grad else None, b if a_needs_grad else None)


class _Forward(_Bilinear):
    """Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
        return dispatch.forward(x, weight, k, stride, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> _Grads:
        x, weight = ctx.saved_tensors
        size = ctx.shapes[0][2:]
        to_x = None if weight is None else _GradX.apply(grad, weight, size, *ctx.geometry)
        to_weight = None if x is None else _GradWeight.apply(grad, x, *ctx.geometry)
        return to_x, to_weight, None, None, None

    @staticmethod
    def vmap(info: Any, dims: _Dims, x: Tensor, weight: Tensor, *geometry: int) -> tuple[Tensor, int]:
        return _map_with_kernels(_Forward, info.batch_size, dims, x, weight, *geometry)


class _GradX(_Bilinear):
    """Maps grad (B, C, h, w), weight (C, k·k, h, w), size (H, W) -> (B, C, H, W)."""

    @staticmethod
    def forward(grad: Tensor, weight: Tensor, size: Sequence[int], k: int, stride: int, dilation: int) -> Tensor:
        return dispatch.grad_x(grad, weight, size, k, stride, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> _Grads:
        inner, weight = ctx.saved_tensors
        _, *geometry = ctx.geometry
        to_inner = None if weight is None else _Forward.apply(grad, weight, *geometry)
        to_weight = None if inner is None else _GradWeight.apply(inner, grad, *geometry)
        return to_inner, to_weight, None, None, None, None

    @staticmethod
    def vmap(info: Any, dims: _Dims, grad: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return _map_with_kernels(_GradX, info.batch_size, dims, grad, weight, *rest)


class _GradWeight(_Bilinear):
    """Maps grad (B, C, h, w), x (B, C, H, W) -> (C, k·k, h, w)."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
        return dispatch.grad_weight(grad, x, k, stride, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> _Grads:
        inner, x = ctx.saved_tensors
        size = ctx.shapes[1][2:]
        to_inner = None if x is None else _Forward.apply(x, grad, *ctx.geometry)
        to_x = None if inner is None else _GradX.apply(inner, grad, size, *ctx.geometry)
        return to_inner, to_x, None, None, None

    @staticmethod
    def vmap(info: Any, dims: _Dims, grad: Tensor, x: Tensor, *geometry: int) -> tuple[Tensor, int]:
        n = info.batch_size
        grad, x = _in_front(grad, dims[0], n), _in_front(x, dims[1], n)
        out = _GradWeight.apply(_into_channels(grad), _into_channels(x), *geometry)
        return out.unflatten(0, (n, -1)), 0


def _map_with_kernels(
    function: type[Function], n: int, dims: _Dims, maps: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, int]:
    """Move the mapped dimension into the batch where all maps share their kernels, else into the channels."""
    maps = _in_front(maps, dims[0], n)  # (n, B, C, ..)
    if dims[1] is None:
        return function.apply(maps.flatten(0, 1), weight, *rest).unflatten(0, (n, -1)), 0
    weight = _in_front(weight, dims[1], n).flatten(0, 1)
    return function.apply(_into_channels(maps), weight, *rest).unflatten(1, (n, -1)), 1


def _in_front(tensor: Tensor, dim: int | None, n: int) -> Tensor:
    """The tensor with the mapped dimension in front; a tensor without one is repeated n times."""
    return tensor.expand(n, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _into_channels(maps: Tensor) -> Tensor:
    """(n, B, C, ..) -> (B, n·C, ..)."""
    return maps.transpose(0, 1).flatten(1, 2)
