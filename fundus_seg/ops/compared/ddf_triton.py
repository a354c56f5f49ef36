"""The decoupled filter of DDF on CUDA: the output, the gradient of x, and those of both filters, as Triton kernels.

    O[b, c, i] = Σ_t S[b, t, i] F[b, c, t] x[b, c, i + t]        S: a filter per position    F: a filter per channel

A program owns the positions of a small block for some channels of one image. A value of S is loaded once for all these
channels, and one of F once for all these positions; the overlapping reads of the k² taps meet in the L1 cache, so x is
read from memory once, or nearly so. The gradient of x is gathered by the same kernel. For the filters each program
sums over its own channels (S) or positions (F) and writes the sum; torch then adds up those of all programs. There are
no atomics, so the same call gives the same bits. Sums are made in float32, or in float64 for float64.

No GPU was at hand: nothing here was timed. The kernels equal the equation in Triton's interpreter, and compile for
compute capabilities 8.0 and 9.0; for 9.0 no register is spilled (k 3 and 5, float32 and bfloat16). The blocks were
chosen by that and by the bytes that they read and write, not by measurement; `benchmarks/gpu_ddf.py` checks and times
all on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fundus_seg.ops.layout import empty_map_like, is_channels_last, map_in
from fundus_seg.ops.triton_backend import block_length, lanes, neighbour, number_types


def forward(x: Tensor, spatial: Tensor, channel: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps x (B, C, H, W), spatial (B, k·k, h, w), channel (B, C, k·k) -> (B, C, h, w)."""
    out = empty_map_like(x, spatial.shape[2:])
    return _gather(x, spatial, channel, out, k, stride, dilation, transposed=False)


def backward(
    grad: Tensor, x: Tensor, spatial: Tensor, channel: Tensor, k: int, stride: int, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps grad (B, C, h, w) and the operands of the forward pass to the gradients of x, spatial and channel."""
    to_x = _gather(grad, spatial, channel, empty_map_like(x, x.shape[2:]), k, stride, dilation, transposed=True)
    to_spatial, to_channel = torch.empty_like(spatial), torch.empty_like(channel)
    last = is_channels_last(x)
    grad, x, spatial = (map_in(each, last) for each in (grad, x, spatial))
    channel = channel.mT.contiguous()  # (B, k·k, C), whose channels lie side by side
    (places, blocks), tile = _blocks(grad)
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    of_blocks = spatial.new_empty(blocks, *spatial.shape, dtype=sums)
    of_places = channel.new_empty(places, *channel.shape, dtype=sums)
    with torch.cuda.device_of(grad):
        _grad_filters_kernel[(places * len(x), blocks)](
            grad, x, spatial, channel, of_blocks, of_places, *grad.shape, *x.shape[2:],
            *grad.stride(), *x.stride(), *spatial.stride(), *channel.stride(), *of_blocks.stride(), *of_places.stride(),
            K=k, STRIDE=stride, DILATION=dilation, **tile, **number_types(grad, x, of_blocks, of_places),
        )  # fmt: skip
    return to_x, to_spatial.copy_(of_blocks.sum(dim=0)), to_channel.copy_(of_places.sum(dim=0).mT)


def _gather(
    source: Tensor, spatial: Tensor, channel: Tensor, result: Tensor, k: int, stride: int, dilation: int,
    transposed: bool,
) -> Tensor:  # fmt: skip
    """The sum over taps that makes the output of x, or, transposed, the gradient of x of the output's."""
    last = is_channels_last(result)
    source, spatial, channel = map_in(source, last), map_in(spatial, last), channel.mT.contiguous()
    (places, blocks), tile = _blocks(result)
    with torch.cuda.device_of(source):
        _gather_kernel[(places * len(result), blocks)](
            source, spatial, channel, result, *result.shape, *source.shape[2:],
            *source.stride(), *spatial.stride(), *channel.stride(), *result.stride(),
            K=k, STRIDE=stride, DILATION=dilation, TRANSPOSED=transposed,
            **tile, **number_types(source, spatial, channel, result),
        )  # fmt: skip
    return result


def _blocks(x: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """The numbers of blocks of positions and of channels of x (B, C, h, w), and the sizes of a block.

    64 positions x 32 channels, or more of the one where there are fewer of the other: filters, and the sums that become
    their gradients, are small beside the map then, and 8 sums of a thread fit its registers.
    """
    channels, rows, cols = x.shape[1:]
    block_cols = block_length(16, cols)
    block_c = block_length(2048 // (block_cols * block_length(64 // block_cols, rows)), channels)
    block_rows = block_length(2048 // (block_cols * block_c), rows)
    places = triton.cdiv(rows, block_rows) * triton.cdiv(cols, block_cols)
    tile = {"BLOCK_ROWS": block_rows, "BLOCK_COLS": block_cols, "BLOCK_C": block_c, "num_warps": 8}
    return (places, triton.cdiv(channels, block_c)), tile


@triton.jit
def _gather_kernel(
    source: tl.tensor,
    spatial: tl.tensor,
    channel: tl.tensor,
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
    spatial_b: tl.tensor,
    spatial_tap: tl.tensor,
    spatial_row: tl.tensor,
    spatial_col: tl.tensor,
    channel_b: tl.tensor,
    channel_tap: tl.tensor,
    channel_c: tl.tensor,
    result_b: tl.tensor,
    result_c: tl.tensor,
    result_row: tl.tensor,
    result_col: tl.tensor,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    INDEX: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
) -> None:
    """result[b, c, i, j] = Σ of spatial · channel · source over the taps; the strides of each tensor follow its name.

    Forward: the result is the output, the source x. Transposed: the result is the gradient of x, the source that of the
    output.
    """
    _, image, c, i, j, here = _block(batch, rows, cols, BLOCK_ROWS, BLOCK_COLS, BLOCK_C, INDEX)
    total = tl.zeros((BLOCK_ROWS * BLOCK_COLS, BLOCK_C), ACCUMULATOR)
    for u in range(K):  # not unrolled: k² taps at once hold too many registers
        y, y_found = neighbour(i, source_rows, u - K // 2, STRIDE, DILATION, TRANSPOSED)
        for v in tl.static_range(K):
            x, x_found = neighbour(j, source_cols, v - K // 2, STRIDE, DILATION, TRANSPOSED)
            found = here & y_found & x_found
            tap = tl.cast(u * K + v, INDEX)
            of_position = spatial + image * spatial_b + tap * spatial_tap
            if TRANSPOSED:  # a filter belongs to a position of the output, here the source
                of_position += y * spatial_row + x * spatial_col
            else:
                of_position += i * spatial_row + j * spatial_col
            by_position = tl.load(of_position, mask=found, other=0).to(ACCUMULATOR)
            of_channel = channel + image * channel_b + tap * channel_tap + c * channel_c
            by_channel = tl.load(of_channel, mask=c < channels, other=0).to(ACCUMULATOR)
            there = source + image * source_b + y * source_row + x * source_col
            value = _load(there, c * source_c, found, c < channels).to(ACCUMULATOR)
            total += by_position[:, None] * by_channel[None, :] * value
    to = (result + image * result_b + i * result_row + j * result_col)[:, None] + (c * result_c)[None, :]
    tl.store(to, total.to(result.dtype.element_ty), mask=here[:, None] & (c < channels)[None, :])


@triton.jit
def _grad_filters_kernel(
    grad: tl.tensor,
    source: tl.tensor,
    spatial: tl.tensor,
    channel: tl.tensor,
    to_spatial: tl.tensor,
    to_channel: tl.tensor,
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
    spatial_b: tl.tensor,
    spatial_tap: tl.tensor,
    spatial_row: tl.tensor,
    spatial_col: tl.tensor,
    channel_b: tl.tensor,
    channel_tap: tl.tensor,
    channel_c: tl.tensor,
    to_spatial_block: tl.tensor,
    to_spatial_b: tl.tensor,
    to_spatial_tap: tl.tensor,
    to_spatial_row: tl.tensor,
    to_spatial_col: tl.tensor,
    to_channel_place: tl.tensor,
    to_channel_b: tl.tensor,
    to_channel_tap: tl.tensor,
    to_channel_c: tl.tensor,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    INDEX: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
) -> None:
    """Of each block, with p = grad[b, c, i, j] · source at the tap t of (i, j):

    to_spatial[block of channels, b, t, i, j] = Σ_c p · channel[b, t, c]
    to_channel[block of positions, b, t, c] = Σ_ij p · spatial[b, t, i, j]
    """
    place, image, c, i, j, here = _block(batch, rows, cols, BLOCK_ROWS, BLOCK_COLS, BLOCK_C, INDEX)
    known = c < channels
    own = _load(grad + image * grad_b + i * grad_row + j * grad_col, c * grad_c, here, known).to(ACCUMULATOR)
    spatial += image * spatial_b + i * spatial_row + j * spatial_col
    channel += image * channel_b + c * channel_c
    to_spatial += tl.program_id(1).to(INDEX) * to_spatial_block + image * to_spatial_b
    to_channel += place * to_channel_place + image * to_channel_b
    for u in range(K):
        y, y_found = neighbour(i, source_rows, u - K // 2, STRIDE, DILATION, False)
        for v in tl.static_range(K):
            x, x_found = neighbour(j, source_cols, v - K // 2, STRIDE, DILATION, False)
            there = source + image * source_b + y * source_row + x * source_col
            product = own * _load(there, c * source_c, here & y_found & x_found, known).to(ACCUMULATOR)
            tap = tl.cast(u * K + v, INDEX)
            by_position = tl.load(spatial + tap * spatial_tap, mask=here, other=0).to(ACCUMULATOR)
            by_channel = tl.load(channel + tap * channel_tap, mask=known, other=0).to(ACCUMULATOR)
            of_position = tl.sum(product * by_channel[None, :], axis=1)
            of_channel = tl.sum(product * by_position[:, None], axis=0)
            tl.store(
                to_spatial + tap * to_spatial_tap + i * to_spatial_row + j * to_spatial_col, of_position, mask=here
            )
            tl.store(to_channel + tap * to_channel_tap + c * to_channel_c, of_channel, mask=known)


@triton.jit
def _block(
    batch: tl.tensor,
    rows: tl.tensor,
    cols: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    INDEX: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """What this program owns: a block of positions of one image, as two numbers; its channels; rows and columns of the
    positions, and which of these exist.
    """
    # In place of the channels of one image stand the images.
    _, i, j, here = lanes(batch, rows, cols, False, 1, BLOCK_ROWS, BLOCK_COLS, 2, INDEX)
    places = tl.cdiv(rows, BLOCK_ROWS) * tl.cdiv(cols, BLOCK_COLS)
    place, image = tl.program_id(0) % places, tl.program_id(0) // places
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)).to(INDEX)
    return place.to(INDEX), image.to(INDEX), c, i, j, here


@triton.jit
def _load(positions: tl.tensor, channels: tl.tensor, here: tl.tensor, known: tl.tensor) -> tl.tensor:
    """(positions, channels) of a map, zero where either does not exist."""
    return tl.load(positions[:, None] + channels[None, :], mask=here[:, None] & known[None, :], other=0)
