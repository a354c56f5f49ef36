"""The package's own operators in operations of ONNX: for each tap of a window, a slice of the padded map.

The tensors are values of onnxscript. A kernel that is a constant is cut into its taps when constants are folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

import fundus_seg.ops.compared  # noqa: F401  it declares some of them


def translations() -> dict[Any, Callable[..., Any]]:
    """The function that writes each of the package's operators, by the operator as torch names it."""
    own = torch.ops.fundus_seg
    return {
        own.translation_variant_conv2d.default: _convolve,
        own.translation_variant_conv2d_grad_weight.default: _correlate,
        own.decoupled_filter.default: _filter,
    }


def _convolve(x: Any, weight: Any, k: int, stride: int, dilation: int) -> Any:
    """Write x (B, C, H, W) and weight (C, k·k, h, w) to (B, C, h, w)."""
    op, views = _operations(), _views(x, weight.shape[2:], k, stride, dilation)
    return _sum(op.Mul(view, _tap(weight, tap)) for tap, view in enumerate(views))


def _correlate(grad: Any, x: Any, k: int, stride: int, dilation: int) -> Any:
    """Write grad (B, C, h, w) and x (B, C, H, W) to (C, k·k, h, w), the products of each tap summed over B."""
    op = _operations()
    views = _views(x, grad.shape[2:], k, stride, dilation)
    images, taps = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    return op.Concat(
        *(op.Unsqueeze(op.ReduceSum(op.Mul(grad, view), images, keepdims=0), taps) for view in views), axis=1
    )


def _filter(x: Any, spatial: Any, channel: Any, k: int, stride: int, dilation: int) -> Any:
    """Write x (B, C, H, W), spatial (B, k·k, h, w) and channel (B, C, k·k) to (B, C, h, w)."""
    op, pixel, one = _operations(), (2, 3), (1,)

    def by_both(tap: int, view: Any) -> Any:
        of_channel = op.Unsqueeze(_tap(channel, tap, axis=2), op.Constant(value_ints=pixel))
        of_place = op.Unsqueeze(_tap(spatial, tap), op.Constant(value_ints=one))
        return op.Mul(op.Mul(view, of_channel), of_place)

    return _sum(by_both(tap, view) for tap, view in enumerate(_views(x, spatial.shape[2:], k, stride, dilation)))


def _operations() -> Any:
    from onnxscript import opset18

    return opset18


def _views(x: Any, size: Any, k: int, stride: int, dilation: int) -> Iterator[Any]:
    """For each tap, what it sees of x (B, C, H, W) at each place of a map of the size (h, w): (B, C, h, w)."""
    op, (height, width), margin = _operations(), size, dilation * (k // 2)
    padded = op.Pad(x, op.Constant(value_ints=[0, 0, margin, margin, 0, 0, margin, margin]))
    for tap in range(k * k):
        top, left = dilation * (tap // k), dilation * (tap % k)
        yield op.Slice(
            padded,
            op.Constant(value_ints=[top, left]),
            op.Constant(value_ints=[top + stride * (height - 1) + 1, left + stride * (width - 1) + 1]),
            op.Constant(value_ints=[2, 3]),
            op.Constant(value_ints=[stride, stride]),
        )


def _tap(kernel: Any, tap: int, *, axis: int = 1) -> Any:
    op = _operations()
    return op.Gather(kernel, op.Constant(value_int=tap), axis=axis)


def _sum(terms: Iterator[Any]) -> Any:
    total = next(terms)
    for term in terms:
        total = _operations().Add(total, term)
    return total
