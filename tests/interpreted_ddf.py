"""The Triton kernels of DDF on the CPU, in Triton's interpreter: run by test_triton.py, in a process of its own.

By hand: TRITON_INTERPRET=1 pytest tests/interpreted_ddf.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fundus_seg.ops import dispatch, triton_backend
from fundus_seg.ops.compared import DDF2d, ddf, ddf_triton
from fundus_seg.ops.layout import is_channels_last, map_in


def equation(x: Tensor, spatial: Tensor, channel: Tensor, stride: int, dilation: int) -> Tensor:
    """Eq. 3 with its windows written out, for x (B, C, H, W)."""
    k = int(spatial.shape[1] ** 0.5)
    windows = torch.nn.functional.unfold(x, k, dilation, dilation * (k // 2), stride).unflatten(1, (x.shape[1], -1))
    return torch.einsum("btp,bct,bctp->bcp", spatial.flatten(2), channel, windows).unflatten(2, spatial.shape[2:])


def check(
    batch: int = 3,
    channels: int = 5,
    size: tuple[int, int] = (5, 4),
    k: int = 3,
    stride: int = 1,
    dilation: int = 1,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> None:
    """The output and its three gradients against the equation in float64, from the same rounded operands."""
    generator = torch.Generator().manual_seed(0)
    size_out = [(n - 1) // stride + 1 for n in size]
    shapes = [
        (batch, channels, *size),
        (batch, k * k, *size_out),
        (batch, channels, k * k),
        (batch, channels, *size_out),
    ]
    given = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    exact = [each.double().requires_grad_() for each in given[:3]]
    expected = equation(*exact, stride, dilation)
    gradients = torch.autograd.grad(expected, exact, given[3].double())
    x, spatial, channel, grad = map_in(given[0], channels_last), *given[1:]
    geometry = k, stride, dilation
    results = (
        ddf_triton.forward(x, spatial, channel, *geometry),
        *ddf_triton.backward(grad, x, spatial, channel, *geometry),
    )
    assert [is_channels_last(each) for each in results[:2]] == [is_channels_last(x)] * 2
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    for result, value in zip(results, (expected, *gradients), strict=True):
        assert result.dtype == dtype
        # Sums in float32 or float64, then one rounding; the interpreter cuts bfloat16 off where a GPU rounds.
        bounds = {"rtol": torch.finfo(dtype).eps, "atol": 1000 * torch.finfo(sums).eps}
        torch.testing.assert_close(result.double(), value, **bounds)


LAYOUTS = pytest.mark.parametrize("channels_last", [False, True])


@LAYOUTS
@pytest.mark.parametrize(("k", "stride", "dilation"), [(1, 1, 1), (3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 3, 2)])
def test_equals_the_equation(k: int, stride: int, dilation: int, channels_last: bool) -> None:
    check(k=k, stride=stride, dilation=dilation, dtype=torch.float64, channels_last=channels_last)


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_precision(dtype: torch.dtype, channels_last: bool) -> None:
    check(dtype=dtype, channels_last=channels_last)


@LAYOUTS
@pytest.mark.parametrize(
    ("batch", "channels", "size"),
    [(1, 1, (1, 1)), (3, 70, (1, 1)), (1, 33, (5, 18)), (2, 3, (33, 18)), (1, 70, (2, 19)), (3, 5, (19, 1))],
)
def test_maps_above_and_below_a_block(batch: int, channels: int, size: tuple[int, int], channels_last: bool) -> None:
    check(batch, channels, size, channels_last=channels_last)


@LAYOUTS
def test_an_empty_batch(channels_last: bool) -> None:
    check(batch=0, channels_last=channels_last)


@LAYOUTS
def test_offsets_of_large_tensors(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their offsets are 64-bit numbers; here those of small tensors are, too."""
    monkeypatch.setattr(triton_backend, "_NARROW", 0)
    check(batch=2, channels=33, size=(3, 17), channels_last=channels_last)


@LAYOUTS
def test_the_module_computes_with_them(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole operator and every gradient, by the kernels and by plain torch; `using` chooses the latter."""
    torch.manual_seed(0)
    module = DDF2d(7).double()
    x = map_in(torch.randn(2, 7, 6, 5, dtype=torch.float64), channels_last).requires_grad_()

    def computed() -> list[Tensor]:
        out = module(x)
        return [out, *torch.autograd.grad(out.square().sum(), [x, *module.parameters()])]

    calls = []

    def counted(name: str) -> None:
        function = getattr(ddf_triton, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(ddf_triton, name, call)

    counted("forward")
    counted("backward")
    plain = computed()
    assert calls == []
    monkeypatch.setattr(ddf, "has_triton", lambda x: dispatch._only is None)
    fused = computed()
    assert calls == ["forward", "backward"]
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other)
    with dispatch.using("portable"):
        assert all(torch.equal(one, other) for one, other in zip(computed(), plain, strict=True))
    assert calls == ["forward", "backward"]
