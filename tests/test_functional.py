from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.ops import translation_variant_conv2d


def reference(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Eq. 2 by four loops: output rows and columns, kernel rows and columns."""
    k = int(weight.shape[1] ** 0.5)
    out = x.new_zeros(x.shape[0], *weight[:, 0].shape)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for u in range(k):
                for v in range(k):
                    row = i * stride + dilation * (u - k // 2)
                    col = j * stride + dilation * (v - k // 2)
                    if 0 <= row < x.shape[2] and 0 <= col < x.shape[3]:
                        out[:, :, i, j] += weight[:, k * u + v, i, j] * x[:, :, row, col]
    return out


def operands(
    k: int = 3, stride: int = 1, batch: int = 2, channels: int = 3, size: tuple[int, int] = (5, 4)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size_out = [(n - 1) // stride + 1 for n in size]
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, k * k, *size_out, generator=generator, dtype=torch.float64)
    return x, weight


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 6])
def test_equals_four_loops(k: int, stride: int, dilation: int) -> None:
    x, weight = operands(k, stride)
    out = translation_variant_conv2d(x, weight, stride=stride, dilation=dilation)
    torch.testing.assert_close(out, reference(x, weight, stride, dilation))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_constant_kernel_is_a_depthwise_convolution(stride: int, dilation: int) -> None:
    x, weight = operands(stride=stride, size=(9, 8))
    weight = weight[:, :, :1, :1].expand_as(weight)
    shared = weight[:, :, 0, 0].reshape(3, 1, 3, 3)
    torch.testing.assert_close(
        translation_variant_conv2d(x, weight, stride=stride, dilation=dilation),
        F.conv2d(x, shared, stride=stride, dilation=dilation, padding=dilation, groups=3),
    )


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_gradients(stride: int, dilation: int) -> None:
    x, weight = operands(stride=stride, channels=2)

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        return translation_variant_conv2d(x, weight, stride=stride, dilation=dilation)

    assert torch.autograd.gradcheck(convolve, (x.requires_grad_(), weight.requires_grad_()))


@pytest.mark.parametrize("needing", ["x", "weight"])
def test_keeps_only_what_the_needed_gradient_reads(needing: str) -> None:
    x, weight = operands()
    leaf, other = (x, weight) if needing == "x" else (weight, x)
    leaf.requires_grad_()
    out = translation_variant_conv2d(x, weight)
    assert out.grad_fn is not None
    saved = [tensor.data_ptr() for tensor in out.grad_fn.saved_tensors if tensor is not None]  # type: ignore[attr-defined]
    assert saved == [other.data_ptr()]
    out.sum().backward()
    assert leaf.grad is not None
    assert other.grad is None


def test_a_second_derivative_is_refused() -> None:
    x, weight = operands()
    energy = translation_variant_conv2d(x.requires_grad_(), weight).square().sum()
    (grad,) = torch.autograd.grad(energy, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x, weight = (tensor.to(dtype) for tensor in operands(k=5, size=(16, 16)))
    exact = translation_variant_conv2d(x.double(), weight.double())
    out = translation_variant_conv2d(x, weight)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps / 2, atol=1e-4)


def test_half_precision_gradients() -> None:
    x, weight = operands(batch=8, size=(8, 8))
    low = [tensor.bfloat16().requires_grad_() for tensor in (x, weight)]
    exact = [tensor.detach().double().requires_grad_() for tensor in low]
    for pair in (low, exact):
        translation_variant_conv2d(*pair).square().sum().backward()
    for a, b in zip(low, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.dtype == torch.bfloat16
        assert F.cosine_similarity(a.grad.double().flatten(), b.grad.flatten(), dim=0) > 0.9999


def test_autocast_casts_as_convolutions_do() -> None:
    x, weight = (tensor.float().requires_grad_() for tensor in operands())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = translation_variant_conv2d(x, weight)
        assert out.dtype == torch.bfloat16
        assert translation_variant_conv2d(x.bfloat16(), weight).dtype == torch.bfloat16
        assert translation_variant_conv2d(x.double(), weight.double()).dtype == torch.float64
    out.float().sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.dtype == weight.grad.dtype == torch.float32


def test_any_memory_layout() -> None:
    x, weight = operands(size=(6, 7))
    expected = translation_variant_conv2d(x, weight)
    strided = x.to(memory_format=torch.channels_last), weight.to(memory_format=torch.channels_last)
    torch.testing.assert_close(translation_variant_conv2d(*strided), expected)
    assert translation_variant_conv2d(*strided).is_contiguous()


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((3, 5, 4), (3, 9, 5, 4), r"x must be \(B, C, H, W\)"),
        ((1, 3, 5, 4), (3, 8, 5, 4), r"weight has 8 taps: pass k\*k of them with an odd k"),
        ((1, 3, 5, 4), (3, 4, 5, 4), "weight has 4 taps"),
        ((1, 3, 5, 4), (2, 9, 5, 4), "x has 3 channels and weight 2"),
        ((1, 3, 5, 4), (3, 9, 4, 5), "kernels for 4x5 positions, but a 5x4 input at stride 1 has 5x4"),
    ],
)
def test_shapes_that_do_not_fit(x: tuple[int, ...], weight: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        translation_variant_conv2d(torch.zeros(x), torch.zeros(weight))


def test_options_that_do_not_fit() -> None:
    x, weight = operands()
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        translation_variant_conv2d(x, weight, stride=0)
    with pytest.raises(ValueError, match=r"x is torch.float64 and weight torch.float32: cast one"):
        translation_variant_conv2d(x, weight.float())
