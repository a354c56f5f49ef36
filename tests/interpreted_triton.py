"""The Triton kernels on the CPU, in Triton's interpreter: run by test_triton.py, in a process of its own.

By hand: TRITON_INTERPRET=1 pytest tests/interpreted_triton.py
"""

from __future__ import annotations

import pytest
import torch
from reference_ops import four_loops
from torch import Tensor

from fundus_seg.ops import triton_backend
from fundus_seg.ops.layout import is_channels_last, kernel_in, map_in


def operands(
    k: int = 3,
    stride: int = 1,
    batch: int = 3,
    channels: int = 5,
    size: tuple[int, int] = (5, 4),
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    size_out = [(n - 1) // stride + 1 for n in size]
    shapes = (batch, channels, *size), (channels, k * k, *size_out), (batch, channels, *size_out)
    x, weight, grad = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return map_in(x, channels_last), kernel_in(weight, channels_last), map_in(grad, channels_last)


def check(x: Tensor, weight: Tensor, grad: Tensor, stride: int = 1, dilation: int = 1) -> None:
    """All three functions against the loops and their derivatives in float64, from the same rounded operands."""
    k = int(weight.shape[1] ** 0.5)
    exact_x, exact_weight = (tensor.double().contiguous().requires_grad_() for tensor in (x, weight))
    exact = four_loops(exact_x, exact_weight, stride, dilation)
    expected = exact, *torch.autograd.grad(exact, (exact_x, exact_weight), grad.double())
    results = (
        triton_backend.forward(x, weight, k, stride, dilation),
        triton_backend.grad_x(grad, weight, (x.shape[2], x.shape[3]), k, stride, dilation),
        triton_backend.grad_weight(grad, x, k, stride, dilation),
    )
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == x.dtype
        # Sums in float32 or float64, then one rounding; the interpreter cuts bfloat16 off where a GPU rounds.
        sums = torch.float64 if x.dtype == torch.float64 else torch.float32
        bounds = {"rtol": torch.finfo(x.dtype).eps, "atol": 100 * torch.finfo(sums).eps}
        torch.testing.assert_close(result.double(), value, **bounds)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("k", "dilation"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
def test_equals_four_loops(k: int, stride: int, dilation: int, channels_last: bool) -> None:
    check(*operands(k, stride, dtype=torch.float64, channels_last=channels_last), stride=stride, dilation=dilation)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_precision(dtype: torch.dtype, channels_last: bool) -> None:
    check(*operands(dtype=dtype, channels_last=channels_last))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("batch", [1, 5, 8, 19])
def test_batches_above_and_below_a_tile(batch: int, channels_last: bool) -> None:
    check(*operands(batch=batch, size=(4, 3), channels_last=channels_last))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(40, (5, 9)), (1, (4, 4)), (2, (1, 1)), (3, (2, 37))])
def test_maps_above_and_below_a_tile(channels: int, size: tuple[int, int], channels_last: bool) -> None:
    check(*operands(batch=2, channels=channels, size=size, channels_last=channels_last))


def test_results_lie_in_memory_as_the_input_does() -> None:
    for channels_last in (False, True):
        x, weight, grad = operands(channels_last=channels_last)
        assert is_channels_last(triton_backend.forward(x, weight, 3, 1, 1)) == channels_last
        assert is_channels_last(triton_backend.grad_x(grad, weight, (5, 4), 3, 1, 1)) == channels_last
        assert triton_backend.grad_weight(grad, x, 3, 1, 1).stride() == weight.stride()


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_empty_batch(channels_last: bool) -> None:
    x, weight, grad = operands(batch=0, channels_last=channels_last)
    assert triton_backend.forward(x, weight, 3, 1, 1).shape == grad.shape
    assert triton_backend.grad_x(grad, weight, (5, 4), 3, 1, 1).shape == x.shape
    assert not triton_backend.grad_weight(grad, x, 3, 1, 1).any()


@pytest.mark.parametrize("channels_last", [False, True])
def test_offsets_of_large_tensors(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their offsets are 64-bit numbers; here those of small tensors are, too."""
    monkeypatch.setattr(triton_backend, "_NARROW", 0)
    check(*operands(batch=9, channels_last=channels_last))
