"""Translation-variant convolution on plain tensors.

Chen et al., *TVConv: Efficient Translation Variant Convolution for Layout-aware Visual Processing*, CVPR 2022, Eq. 2:
every output position has a depthwise kernel of its own. The released code applies the kernels through `unfold`, which
writes k² copies of the input; here each of the k² taps is one multiply-add of a shifted view into the output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_Window = tuple[slice, slice]


def translation_variant_conv2d(x: Tensor, weight: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """Depthwise convolution with a kernel per output position (TVConv, CVPR 2022, Eq. 2).

        O[b, c, i, j] = Σ_t W[c, t, i, j] · x[b, c, s·i + d·(t // k - k // 2), s·j + d·(t % k - k // 2)]

    with stride s, dilation d, taps t = 0 .. k² - 1 in row-major order, and zeros outside x ("same" padding d·(k // 2)).
    A weight that is constant over (i, j) makes it `F.conv2d(..., groups=C)`.

    Args:
        x: (B, C, H, W).
        weight: (C, k·k, H_out, W_out), k odd, with H_out = (H - 1) // stride + 1 and W_out likewise.
        stride: step between output positions, in input pixels.
        dilation: distance between taps, in input pixels.

    Returns:
        (B, C, H_out, W_out), contiguous, in the dtype of x; bfloat16 and float16 are summed in float32, rounded once.
        Under autocast x and weight are cast as `F.conv2d` casts its own, and the result has the autocast dtype.
        Can be differentiated once.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            "x must be (B, C, H, W) and weight (C, k*k, H_out, W_out), "
            f"got shapes {tuple(x.shape)} and {tuple(weight.shape)}: add the missing dimensions."
        )
    k = math.isqrt(weight.shape[1])
    if k * k != weight.shape[1] or k % 2 == 0:
        raise ValueError(f"weight has {weight.shape[1]} taps: pass k*k of them with an odd k (1, 9, 25, ...).")
    if x.shape[1] != weight.shape[0]:
        raise ValueError(
            f"x has {x.shape[1]} channels and weight {weight.shape[0]}: pass one kernel per channel and position."
        )
    if stride < 1 or dilation < 1:
        raise ValueError(f"stride and dilation must be at least 1, got {stride} and {dilation}.")
    height, width = ((n - 1) // stride + 1 for n in x.shape[2:])
    if weight.shape[2:] != (height, width):
        raise ValueError(
            f"weight holds kernels for {weight.shape[2]}x{weight.shape[3]} positions, but a {x.shape[2]}x{x.shape[3]} "
            f"input at stride {stride} has {height}x{width}: pass a weight of that size."
        )
    x, weight = _autocast(x), _autocast(weight)
    if x.dtype != weight.dtype:
        raise ValueError(f"x is {x.dtype} and weight {weight.dtype}: cast one of them, or run under autocast.")
    out: Tensor = _ShiftedMultiplyAdd.apply(x, weight, k, stride, dilation)
    return out


class _ShiftedMultiplyAdd(torch.autograd.Function):
    """Per tap, over views of the operands: an in-place multiply-add into the output and into the gradient of x, a
    product summed over the batch into the gradient of weight.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
        out = x.new_zeros((*x.shape[:2], *weight.shape[2:]), dtype=_accumulator(x.dtype))
        for tap, (rows, cols), (x_rows, x_cols) in _taps(k, x.shape[2:], weight.shape[2:], stride, dilation):
            out[:, :, rows, cols].addcmul_(x[:, :, x_rows, x_cols], weight[:, tap, rows, cols])
        return out.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, *ctx.geometry = inputs
        x_needs_grad, weight_needs_grad = ctx.needs_input_grad[:2]
        ctx.save_for_backward(x if weight_needs_grad else None, weight if x_needs_grad else None)
        ctx.shapes = x.shape, weight.shape

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        x_shape, weight_shape = ctx.shapes
        k, stride, dilation = ctx.geometry
        dtype = grad.dtype
        grad = grad.to(_accumulator(dtype))
        grad_x = None if weight is None else grad.new_zeros(x_shape)
        grad_weight = None if x is None else grad.new_zeros(weight_shape)
        for tap, (rows, cols), (x_rows, x_cols) in _taps(k, x_shape[2:], weight_shape[2:], stride, dilation):
            grad_out = grad[:, :, rows, cols]
            if grad_x is not None:
                grad_x[:, :, x_rows, x_cols].addcmul_(grad_out, weight[:, tap, rows, cols])
            if grad_weight is not None:
                grad_weight[:, tap, rows, cols] = (grad_out * x[:, :, x_rows, x_cols]).sum(0)
        return (
            None if grad_x is None else grad_x.to(dtype),
            None if grad_weight is None else grad_weight.to(dtype),
            None,
            None,
            None,
        )


def _taps(
    k: int, size_in: torch.Size, size_out: torch.Size, stride: int, dilation: int
) -> Iterator[tuple[int, _Window, _Window]]:
    """Each tap with the output window whose input lies inside the image, and that input window.

    The zero padding is never stored: where a tap would read it, the window is cut instead.
    """
    for tap in range(k * k):
        rows, x_rows = _window(dilation * (tap // k - k // 2), size_in[0], size_out[0], stride)
        cols, x_cols = _window(dilation * (tap % k - k // 2), size_in[1], size_out[1], stride)
        yield tap, (rows, cols), (x_rows, x_cols)


def _window(offset: int, n_in: int, n_out: int, stride: int) -> tuple[slice, slice]:
    """The outputs i for which 0 <= stride·i + offset < n_in, and the inputs that they read; both may be empty."""
    first = max(0, -(offset // stride))
    last = min(n_out, -((offset - n_in) // stride))
    if last <= first:
        return slice(0, 0), slice(0, 0)
    start = stride * first + offset
    return slice(first, last), slice(start, start + stride * (last - first - 1) + 1, stride)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that k² products are summed in, as in the convolutions of the libraries below torch."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _autocast(tensor: Tensor) -> Tensor:
    """The tensor as autocast hands it to a convolution: float64 is left alone."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))
