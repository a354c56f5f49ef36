"""The operator and its two gradients as custom operators of torch, computed by the fastest backend that can.

`torch.compile` and `torch.export` keep custom operators whole. Their derivatives are in `fundus_seg.ops.autograd`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from fundus_seg.ops import native, portable
from fundus_seg.ops.layout import empty_kernel_like, empty_map_like, is_channels_last, kernel_in, map_in

_only: ModuleType | None = None
"""The backend that `using` chose."""


@contextlib.contextmanager
def using(name: Literal["native", "portable"]) -> Iterator[None]:
    """Within it the backend `name` alone computes, for benchmarks and tests.

    The choice holds for all threads of the process, because autograd computes gradients in threads of its own.

    Raises:
        ValueError: another name; within, tensors with which the backend does not compute here.
    """
    global _only
    modules = {"native": native, "portable": portable}
    if name not in modules:
        raise ValueError(f"unknown backend {name!r}: pass one of {', '.join(modules)}.")
    before, _only = _only, modules[name]
    try:
        yield
    finally:
        _only = before


def backend(x: Tensor) -> ModuleType:
    """The module that computes with tensors like x: the one that `using` chose, or the fastest that supports them.

    Raises:
        ValueError: `using` chose a backend that does not support them.
    """
    if _only is not None:
        if not _only.supports(x):
            raise ValueError(f"{_only.__name__} does not compute with {x.dtype} on {x.device} here: choose another.")
        return _only
    fast = _triton_backend() if x.is_cuda else native
    return fast if fast is not None and fast.supports(x) else portable


def has_triton(x: Tensor) -> bool:
    """Whether Triton kernels compute with tensors like x, also those of other operators; `using` forbids it."""
    fast = _triton_backend() if x.is_cuda and _only is None else None
    return fast is not None and fast.supports(x)


@functools.cache
def _triton_backend() -> ModuleType | None:
    """Imported at the first tensor on a GPU, because Triton is slow to import and missing on some systems."""
    try:
        from fundus_seg.ops import triton_backend
    except ImportError:
        return None
    return triton_backend


def _forward(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    last = is_channels_last(x)
    compute = backend(x).forward
    return compute(map_in(x, last), kernel_in(weight, last), k, stride, dilation)


def _grad_x(grad: Tensor, weight: Tensor, size: Sequence[int], k: int, stride: int, dilation: int) -> Tensor:
    last = is_channels_last(grad)
    compute = backend(grad).grad_x
    return compute(map_in(grad, last), kernel_in(weight, last), size, k, stride, dilation)


def _grad_weight(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    last = is_channels_last(grad)
    compute = backend(grad).grad_weight
    return compute(map_in(grad, last), map_in(x, last), k, stride, dilation)


_LIBRARY = torch.library.Library("fundus_seg", "DEF")
"""Not by `torch.library.custom_op`, whose first call imports the whole of torch's compiler."""


def declare(
    name: str, tensors: str, compute: Callable[..., Any], shape: Callable[..., Any], result: str = "Tensor"
) -> Any:
    """Declare an operator of some tensors and the geometry.

    Args:
        name: of the operator, in the namespace `fundus_seg`.
        tensors: its first arguments, in the language of torch's schemas.
        compute: the function for tensors on the CPU and on CUDA.
        shape: the function for tensors without numbers.
        result: what both give, in the same language.
    """
    _LIBRARY.define(f"{name}({tensors}, SymInt k, SymInt stride, SymInt dilation) -> {result}")
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, compute, device)
    torch.library.register_fake(f"fundus_seg::{name}", shape, lib=_LIBRARY)
    return getattr(torch.ops.fundus_seg, name)


forward = declare(
    "translation_variant_conv2d",
    "Tensor x, Tensor weight",
    _forward,
    lambda x, weight, *_: empty_map_like(x, weight.shape[2:]),
)
"""Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w), in the layout of x."""
grad_x = declare(
    "translation_variant_conv2d_grad_x",
    "Tensor grad, Tensor weight, SymInt[] size",
    _grad_x,
    lambda grad, weight, size, *_: empty_map_like(grad, size),
)
"""Maps grad (B, C, h, w), weight (C, k·k, h, w), size (H, W) -> (B, C, H, W), in the layout of grad."""
grad_weight = declare(
    "translation_variant_conv2d_grad_weight",
    "Tensor grad, Tensor x",
    _grad_weight,
    lambda grad, x, k, *_: empty_kernel_like(grad, k),
)
"""Maps grad (B, C, h, w), x (B, C, H, W) -> (C, k·k, h, w), in the layout of grad."""
