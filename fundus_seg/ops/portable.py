"""The backend of torch operations: one multiply-add of shifted views per tap, in place, without `unfold`.

It runs wherever torch does. Like every backend it takes operands in one of the two layouts of `fundus_seg.ops.layout`
and returns its result in the same layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fundus_seg.ops.layout import empty_kernel_like, empty_map_like

_Window = tuple[slice, slice]


def supports(x: Tensor) -> bool:
    """Whether this backend computes with tensors of this device and dtype: it does with all of them."""
    return True


def forward(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w)."""
    out = empty_map_like(x, weight.shape[2:], accumulator(x.dtype)).zero_()
    for tap, (rows, cols), (x_rows, x_cols) in taps(k, x.shape[2:], weight.shape[2:], stride, dilation):
        out[:, :, rows, cols].addcmul_(x[:, :, x_rows, x_cols], weight[:, tap, rows, cols])
    return out.to(x.dtype)


def grad_x(grad: Tensor, weight: Tensor, size: Sequence[int], k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), weight (C, k·k, h, w), size (H, W) -> (B, C, H, W)."""
    out = empty_map_like(grad, size, accumulator(grad.dtype)).zero_()
    for tap, (rows, cols), (x_rows, x_cols) in taps(k, size, grad.shape[2:], stride, dilation):
        out[:, :, x_rows, x_cols].addcmul_(grad[:, :, rows, cols], weight[:, tap, rows, cols])
    return out.to(grad.dtype)


def grad_weight(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), x (B, C, H, W) -> (C, k·k, h, w)."""
    out = empty_kernel_like(grad, k, accumulator(grad.dtype)).zero_()
    for tap, (rows, cols), (x_rows, x_cols) in taps(k, x.shape[2:], grad.shape[2:], stride, dilation):
        for b in range(len(x)):  # into the sum at once: a product of the whole batch would have to be stored
            out[:, tap, rows, cols].addcmul_(grad[b, :, rows, cols], x[b, :, x_rows, x_cols])
    return out.to(grad.dtype)


def taps(
    k: int, size_in: Sequence[int], size_out: Sequence[int], stride: int, dilation: int
) -> Iterator[tuple[int, _Window, _Window]]:
    """For each tap the output window whose inputs lie inside the image, and the window of those inputs.

    The zero padding is never stored: windows leave out the outputs whose tap would read it.
    """
    for tap in range(k * k):
        rows, x_rows = _window(dilation * (tap // k - k // 2), size_in[0], size_out[0], stride)
        cols, x_cols = _window(dilation * (tap % k - k // 2), size_in[1], size_out[1], stride)
        yield tap, (rows, cols), (x_rows, x_cols)


def _window(offset: int, n_in: int, n_out: int, stride: int) -> tuple[slice, slice]:
    """The outputs i with 0 <= stride·i + offset < n_in, and the inputs that they read; both windows may be empty."""
    first = max(0, -(offset // stride))
    last = min(n_out, -((offset - n_in) // stride))
    if last <= first:
        return slice(0, 0), slice(0, 0)
    start = stride * first + offset
    return slice(first, last), slice(start, start + stride * (last - first - 1) + 1, stride)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which k² products are summed; half precision is summed in float32, as torch's convolutions do."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
