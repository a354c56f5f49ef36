"""The CUDA backend: the operator and its two gradients as fused Triton kernels, each one launch.

Every kernel value meets one multiply-add per image, so memory should bound the operator. On an H100 it does in float32;
in bfloat16, which moves half the bytes, the instructions around each access do (`benchmarks/gpu.md`). A program owns a
tile of channels x rows x columns for the whole batch: a kernel value comes from memory once, serves some images from a
register and the next ones from the L1 cache, where the overlapping reads of the k² taps meet, too. The gradient of x is
gathered, not scattered: no atomics, so the same call gives the same bits.

Like every backend it takes its operands in one of the two layouts of `fundus_seg.ops.layout`, and answers in it: one
set of kernels reads both through strides, and the lanes of a tile follow what is contiguous, columns or channels.

Importing this module imports Triton. With TRITON_INTERPRET=1 in the environment before the first import of Triton the
kernels run on the CPU, slowly: the tests do so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fundus_seg.ops.layout import empty_kernel_like, empty_map_like, is_channels_last

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the CUDA backend needs Triton (Linux): pip install triton.") from error

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_AMPERE = (8, 0)  # the oldest compute capability that Triton compiles for
_NARROW = 2**31 - 1
"""Elements of the largest tensor that is read with 32-bit offsets, which take fewer registers and instructions."""


def supports(x: Tensor) -> bool:
    """Whether this backend computes with tensors of this device and dtype here."""
    return x.is_cuda and x.dtype in _DTYPES and torch.cuda.get_device_capability(x.device) >= _AMPERE


def forward(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w)."""
    return _gather(x, weight, empty_map_like(x, weight.shape[2:]), k, stride, dilation, transposed=False)


def grad_x(grad: Tensor, weight: Tensor, size: Sequence[int], k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), weight (C, k·k, h, w), size (H, W) -> (B, C, H, W)."""
    return _gather(grad, weight, empty_map_like(grad, size), k, stride, dilation, transposed=True)


def grad_weight(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), x (B, C, H, W) -> (C, k·k, h, w)."""
    result = empty_kernel_like(grad, k)
    grid, tile = _tiling(grad, 16 if is_channels_last(grad) else 8, grad, x, result)
    with torch.cuda.device_of(grad):
        _grad_weight_kernel[grid](
            grad, x, result, *grad.shape, *x.shape[2:], *grad.stride(), *x.stride(), *result.stride(),
            K=k, STRIDE=stride, DILATION=dilation, **tile,
        )  # fmt: skip
    return result


def _gather(
    source: Tensor, weight: Tensor, result: Tensor, k: int, stride: int, dilation: int, transposed: bool
) -> Tensor:
    """The sum over taps that makes the output of x, or, transposed, the gradient of x of the output's."""
    images = 8 if is_channels_last(result) else max(1, 16 // result.element_size())
    grid, tile = _tiling(result, images, source, weight, result)
    with torch.cuda.device_of(source):
        _gather_kernel[grid](
            source, weight, result, *result.shape, *source.shape[2:],
            *source.stride(), *weight.stride(), *result.stride(),
            K=k, STRIDE=stride, DILATION=dilation, TRANSPOSED=transposed, **tile,
        )  # fmt: skip
    return result


def _tiling(x: Tensor, images: int, *operands: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    """The grid over the channels and positions of x (B, C, h, w), and the tile of a program.

    A tile is a block of lanes, each of which is one (channel, row, column), for `images` images at once. These tiles
    are the fastest of those that were timed on an H100 (`benchmarks/gpu.md`). With more images at once, more sums or
    gradients occupy a thread's registers and fewer warps fit on a multiprocessor; with fewer images, the kernels or
    the gradient are read more often. The largest of `operands` decides the width of offsets.
    """
    batch, channels, rows, cols = x.shape
    channels_last = is_channels_last(x)
    if channels_last:
        # 256 bytes of channels, two cache lines, at least the 4 channels of one thread.
        block_c = max(4, block_length(256 // x.element_size(), channels))
        block_cols = block_length(4, cols)
        block_rows = block_length(min(4, 512 // (block_c * block_cols)), rows)
    else:
        # Whole rows while they are short, then whole planes.
        block_cols = block_length(32, cols)
        block_rows = block_length(256 // block_cols, rows)
        block_c = block_length(256 // (block_rows * block_cols), channels)
    tile = {
        "CHANNELS_LAST": channels_last,
        "BLOCK_B": block_length(images, batch),
        "BLOCK_C": block_c,
        "BLOCK_ROWS": block_rows,
        "BLOCK_COLS": block_cols,
        "VECTOR": 4 if channels_last else 2,
        **number_types(*operands),
        # All warps side by side along the lanes: two warps on the same lanes would exchange kernels and sums.
        "num_warps": 4,
    }
    programs = triton.cdiv(channels, block_c) * triton.cdiv(rows, block_rows) * triton.cdiv(cols, block_cols)
    return (programs,), tile


def block_length(most: int, n: int) -> int:
    """The size of a block along an axis of n: a power of 2, as Triton needs it."""
    return min(most, triton.next_power_of_2(max(n, 1)))


def number_types(*operands: Tensor) -> dict[str, Any]:
    """The types of offsets into the largest operand, and of sums of numbers like those of the first one."""
    return {
        "INDEX": tl.int32 if max(operand.numel() for operand in operands) <= _NARROW else tl.int64,
        "ACCUMULATOR": tl.float64 if operands[0].dtype == torch.float64 else tl.float32,
    }


@triton.jit
def _gather_kernel(
    source: tl.tensor,
    weight: tl.tensor,
    result: tl.tensor,
    batch: tl.tensor,
    channels: tl.tensor,
    rows: tl.tensor,
    cols: tl.tensor,
    source_rows: tl.tensor,
    source_cols: tl.tensor,
    source_b: tl.tensor,
    source_c: tl.tensor,
    source_row: tl.tensor,
    source_col: tl.tensor,
    weight_c: tl.tensor,
    weight_tap: tl.tensor,
    weight_row: tl.tensor,
    weight_col: tl.tensor,
    result_b: tl.tensor,
    result_c: tl.tensor,
    result_row: tl.tensor,
    result_col: tl.tensor,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
) -> None:
    """result[b, c, i, j] = Σ of weight · source over the taps; the strides of each tensor follow its name.

    Forward: the result is the output, the source x. Transposed: the result is the gradient of x, the source that of the
    output.
    """
    c, i, j, inside = lanes(channels, rows, cols, CHANNELS_LAST, BLOCK_C, BLOCK_ROWS, BLOCK_COLS, VECTOR, INDEX)
    for first in range(0, batch, BLOCK_B):
        total = tl.zeros((BLOCK_B, BLOCK_C * BLOCK_ROWS * BLOCK_COLS), ACCUMULATOR)
        for u in range(K):  # not unrolled: k² taps at once hold too many registers
            y, y_found = neighbour(i, source_rows, u - K // 2, STRIDE, DILATION, TRANSPOSED)
            for v in tl.static_range(K):
                x, x_found = neighbour(j, source_cols, v - K // 2, STRIDE, DILATION, TRANSPOSED)
                found = inside & y_found & x_found
                kernel = weight + c * weight_c + tl.cast(u * K + v, INDEX) * weight_tap
                if TRANSPOSED:  # a kernel belongs to a position of the output, here the source
                    kernel += y * weight_row + x * weight_col
                else:
                    kernel += i * weight_row + j * weight_col
                value = tl.load(kernel, mask=found, other=0).to(ACCUMULATOR)
                there = source + c * source_c + y * source_row + x * source_col
                total += value[None, :] * _load(there, source_b, first, batch, found, BLOCK_B, INDEX, ACCUMULATOR)
        b = first + tl.arange(0, BLOCK_B)[:, None]
        here = (result + c * result_c + i * result_row + j * result_col)[None, :] + b.to(INDEX) * result_b
        tl.store(here, total.to(result.dtype.element_ty), mask=(b < batch) & inside[None, :])


@triton.jit
def _grad_weight_kernel(
    grad: tl.tensor,
    source: tl.tensor,
    result: tl.tensor,
    batch: tl.tensor,
    channels: tl.tensor,
    rows: tl.tensor,
    cols: tl.tensor,
    source_rows: tl.tensor,
    source_cols: tl.tensor,
    grad_b: tl.tensor,
    grad_c: tl.tensor,
    grad_row: tl.tensor,
    grad_col: tl.tensor,
    source_b: tl.tensor,
    source_c: tl.tensor,
    source_row: tl.tensor,
    source_col: tl.tensor,
    result_c: tl.tensor,
    result_tap: tl.tensor,
    result_row: tl.tensor,
    result_col: tl.tensor,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
) -> None:
    """result[c, t, i, j] = Σ of grad · source over the batch; the strides of each tensor follow its name."""
    c, i, j, inside = lanes(channels, rows, cols, CHANNELS_LAST, BLOCK_C, BLOCK_ROWS, BLOCK_COLS, VECTOR, INDEX)
    here = grad + c * grad_c + i * grad_row + j * grad_col
    # Of the first images, mostly all there are, the gradient stays in registers for the k² taps.
    first_grad = _load(here, grad_b, 0, batch, inside, BLOCK_B, INDEX, ACCUMULATOR)
    for u in range(K):
        y, y_found = neighbour(i, source_rows, u - K // 2, STRIDE, DILATION, False)
        for v in tl.static_range(K):
            x, x_found = neighbour(j, source_cols, v - K // 2, STRIDE, DILATION, False)
            found = inside & y_found & x_found
            there = source + c * source_c + y * source_row + x * source_col
            total = tl.sum(first_grad * _load(there, source_b, 0, batch, found, BLOCK_B, INDEX, ACCUMULATOR), axis=0)
            for first in range(BLOCK_B, batch, BLOCK_B):
                next_grad = _load(here, grad_b, first, batch, found, BLOCK_B, INDEX, ACCUMULATOR)
                next_source = _load(there, source_b, first, batch, found, BLOCK_B, INDEX, ACCUMULATOR)
                total += tl.sum(next_grad * next_source, axis=0)
            kernel = result + c * result_c + i * result_row + j * result_col + tl.cast(u * K + v, INDEX) * result_tap
            tl.store(kernel, total.to(result.dtype.element_ty), mask=inside)


@triton.jit
def lanes(
    channels: tl.tensor,
    rows: tl.tensor,
    cols: tl.tensor,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Channel, row and column of each lane of this program, and whether they exist.

    Lanes and programs are numbered in the order of memory. The numbers have the type INDEX, because they are multiplied
    by strides. Each thread owns VECTOR neighbouring lanes.
    """
    lane = tl.arange(0, BLOCK_C * BLOCK_ROWS * BLOCK_COLS)
    program = tl.program_id(0)
    c_blocks, row_blocks, col_blocks = tl.cdiv(channels, BLOCK_C), tl.cdiv(rows, BLOCK_ROWS), tl.cdiv(cols, BLOCK_COLS)
    if CHANNELS_LAST:
        # 4 channels a thread, 16 bytes of float32: 8 of bfloat16 would need twice the registers for their sums.
        c = tl.max_contiguous(tl.multiple_of(lane % BLOCK_C, VECTOR), VECTOR)
        col = lane // BLOCK_C % BLOCK_COLS
        row = lane // (BLOCK_C * BLOCK_COLS)
        c += program % c_blocks * BLOCK_C
        col += program // c_blocks % col_blocks * BLOCK_COLS
        row += program // (c_blocks * col_blocks) * BLOCK_ROWS
    else:
        # Each thread owns two columns. Taps shift a row by single columns, so it cannot be read 16 bytes at a time, and
        # with 4 columns per thread the loads of a warp would lie 16 bytes apart. With a hint of one contiguous column
        # Triton would spread a warp over the images instead of the columns, which is three times as slow.
        col = tl.max_contiguous(lane % BLOCK_COLS, VECTOR if BLOCK_COLS >= VECTOR else 1)
        row = lane // BLOCK_COLS % BLOCK_ROWS
        c = lane // (BLOCK_COLS * BLOCK_ROWS)
        col += program % col_blocks * BLOCK_COLS
        row += program // col_blocks % row_blocks * BLOCK_ROWS
        c += program // (col_blocks * row_blocks) * BLOCK_C
    inside = (c < channels) & (row < rows) & (col < cols)
    return c.to(INDEX), row.to(INDEX), col.to(INDEX), inside


@triton.jit
def neighbour(
    position: tl.tensor,
    size: tl.tensor,
    offset: tl.tensor,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    TRANSPOSED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Along one axis, the input that an output reads through the tap at this offset from the centre, and whether it
    lies inside; transposed: the output that reads this input.
    """
    if TRANSPOSED:
        distance = position - DILATION * offset
        index = distance // STRIDE
        found = (distance >= 0) & (index * STRIDE == distance) & (index < size)
    else:
        index = position * STRIDE + DILATION * offset
        found = (index >= 0) & (index < size)
    return index, found


@triton.jit
def _load(
    pointers: tl.tensor,
    stride_b: tl.tensor,
    first: tl.tensor,
    batch: tl.tensor,
    mask: tl.tensor,
    BLOCK_B: tl.constexpr,
    INDEX: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
) -> tl.tensor:
    """(BLOCK_B, lanes): what pointers into image 0 point at in the images from `first` on, zero where there is none."""
    b = first + tl.arange(0, BLOCK_B)[:, None]
    loaded = tl.load(pointers[None, :] + b.to(INDEX) * stride_b, mask=(b < batch) & mask[None, :], other=0)
    return loaded.to(ACCUMULATOR)
