"""TranslationVariantConv2d: the base of the modules, which caches kernels, resamples them, and applies them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.ops.functional import convolved_dtype, translation_variant_conv2d
from fundus_seg.ops.layout import is_channels_last, kernel_in

KERNEL_CACHE_BYTES = 2**30

Size = tuple[int, int]
Resample = Literal["bilinear"] | None
_Form = tuple[Size, torch.dtype, bool]
"""The size (h, w) of a map, its dtype, and whether it lies channels last: what a kernel must fit."""


class KernelOptions(TypedDict, total=False):
    """The keyword arguments that every subclass of `TranslationVariantConv2d` hands on to it."""

    stride: int
    resample: Resample
    kernel_cache_bytes: int


class TranslationVariantConv2d(nn.Module, ABC):
    """Depthwise convolution with a kernel per position (TVConv, CVPR 2022, Eq. 2); no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2, h = (H - 1) // stride + 1 and w likewise. The method
    `_generate` of a subclass makes the kernels W (C, k·k, h, w).

    Args:
        channels: C, of x and of what is returned.
        size: (h, w) of the *output* map that W is made for.
        kernel_size: k, odd.
        stride: step between output positions, in input pixels.
        resample: "bilinear" resamples W to the size of the map at hand (align_corners False, antialiased where a side
            shrinks); None refuses maps of another size.
        kernel_cache_bytes: the bytes that all cached kernels of the module may take together, and that one resampled
            kernel may take.

    W is generated and resampled in the parameters' dtype even under autocast, because all images share its rounding
    errors; `translation_variant_conv2d` then casts it together with x.

    The module caches its kernels, one for each size, dtype and layout of map, while it is not training and no gradient
    of the kernels is recorded; it drops the least recently used to stay within `kernel_cache_bytes`. Kernels are
    generated anew after a parameter is replaced, moved or written in place, and after a pass that records gradients.
    Writes that autograd does not count (`parameter.data.copy_(...)`, a fused optimizer step right after a pass without
    gradients) need `drop_kernel_cache()`. Under `torch.compile` and `torch.export` the generation of W is part of the
    graph.

    On CUDA, torch has no deterministic gradient for a W that shrinks.

    Raises:
        ValueError: an even kernel size, an unknown `resample`; in `forward`, a map of another size than `size`.
        MemoryError: in `forward`, a map so large that W would take more than `kernel_cache_bytes`; nothing is
            allocated.
    """

    def __init__(
        self,
        channels: int,
        size: Size,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        resample: Resample = None,
        kernel_cache_bytes: int = KERNEL_CACHE_BYTES,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}: pass {kernel_size + 1}.")
        if resample not in (None, "bilinear"):
            raise ValueError(f"unknown resample {resample!r}: pass 'bilinear' or None.")
        self.channels = channels
        self.size = size
        self.kernel_size = kernel_size
        self.stride = stride
        self.resample = resample
        self.kernel_cache_bytes = kernel_cache_bytes
        self._cached: _KernelCache | None = None

    @abstractmethod
    def _generate(self) -> Tensor:
        """W: (C, k·k, h, w) at the module's own size, taps in row-major order."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, h, w)."""
        height, width = ((n - 1) // self.stride + 1 for n in x.shape[-2:])
        dtype = convolved_dtype(next(self.parameters()))
        weight = self._kernel((height, width), dtype, channels_last=is_channels_last(x))
        return translation_variant_conv2d(x, weight, stride=self.stride)

    def kernel(self, size: Size | None = None) -> Tensor:
        """W: (C, k·k, h, w), taps in row-major order, for the module's own size or for another size of map.

        The result may be the cached tensor or a parameter: do not write to it.
        """
        return self._kernel(size or self.size, next(self.parameters()).dtype, channels_last=False)

    def _kernel(self, size: Size, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
        """W for maps of this size, dtype and layout, from the cache where caching is safe."""
        parameters = tuple(self.parameters())
        if self.training or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
            self.drop_kernel_cache()  # an optimizer step is likely to follow, and a fused one leaves no trace
            return self._make(size)
        # A graph that is being compiled must not keep a kernel; tensors made in inference mode count no writes.
        if torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
            return self._make(size)
        cached = self._cached
        if cached is None or not cached.made_from(parameters):
            cached = self._cached = _KernelCache.of(parameters)
        form = (size, dtype, channels_last)
        kernel = cached.get(form)
        if kernel is None:
            kernel = kernel_in(self._make(size).to(dtype), channels_last)
            cached.keep(form, kernel, at_most=self.kernel_cache_bytes)
        return kernel

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimiser should not decay, where they are there: affinity maps start at 1."""
        return {"affinity_maps"}

    def drop_kernel_cache(self) -> None:
        """Drop the cached kernels: needed only after writes to a parameter that autograd does not count."""
        self._cached = None

    def _make(self, size: Size) -> Tensor:
        self._check_size(size)
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return self._generate() if size == self.size else resampled(self.kernel(), size)

    def _check_size(self, size: Size) -> None:
        """Refuse a map of another size than the module's own, if W is not to be resampled or would be too large."""
        if size == self.size:
            return
        (height, width), (own_height, own_width) = size, self.size
        if self.resample is None:
            raise ValueError(
                f"{type(self).__name__} was built for {own_height}x{own_width} feature maps, got {height}x{width}: "
                f"pass size=({height}, {width}), or resample='bilinear'."
            )
        needed = self.channels * self.kernel_size**2 * height * width * next(self.parameters()).element_size()
        if needed > self.kernel_cache_bytes:
            raise MemoryError(
                f"{type(self).__name__} needs {needed:,} bytes of kernels for {height}x{width} feature maps, more than "
                f"kernel_cache_bytes={self.kernel_cache_bytes:,}: pass a smaller input, or raise kernel_cache_bytes."
            )

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode; the switch to training drops the cached kernels."""
        if mode:
            self.drop_kernel_cache()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Dtype and device moves swap `.data` below a parameter that keeps its identity and version.
        self.drop_kernel_cache()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_cached": None}

    def extra_repr(self) -> str:
        """The options that `print(module)` shows between the parentheses."""
        options = f"{self.channels}, size={self.size}, kernel_size={self.kernel_size}, stride={self.stride}"
        return options if self.resample is None else f"{options}, resample={self.resample!r}"


def resampled(kernel: Tensor, size: Size) -> Tensor:
    """Kernels (C, k·k, h, w) for a map of another size: bilinear, antialiased where a side shrinks; the same dtype."""
    shrinks = any(after < before for before, after in zip(kernel.shape[2:], size, strict=True))
    # On the CPU torch antialiases no 16-bit floats.
    exact = kernel.float() if kernel.element_size() < 4 else kernel
    return F.interpolate(exact, size, mode="bilinear", align_corners=False, antialias=shrinks).to(kernel.dtype)


@dataclass(frozen=True)
class _KernelCache:
    """Kernels by the form of map that they fit, all made from one state of a module's parameters."""

    parameters: tuple[nn.Parameter, ...]  # kept alive, so that no later parameter can be mistaken for one of these
    versions: tuple[int, ...]
    kernels: dict[_Form, Tensor] = field(default_factory=dict)  # the least recently used first
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, parameters: tuple[nn.Parameter, ...]) -> _KernelCache:
        """An empty cache for kernels made from these parameters as they are now."""
        return cls(parameters, tuple(p._version for p in parameters))

    def made_from(self, parameters: tuple[nn.Parameter, ...]) -> bool:
        """Whether these are the parameters that the kernels were made from, not written to since."""
        return len(parameters) == len(self.parameters) and all(
            p is q and p._version == version
            for p, q, version in zip(parameters, self.parameters, self.versions, strict=True)
        )

    def get(self, form: _Form) -> Tensor | None:
        """The kernel of this form, which becomes the most recently used; None if there is none."""
        with self.lock:
            kernel = self.kernels.pop(form, None)
            if kernel is not None:
                self.kernels[form] = kernel
            return kernel

    def keep(self, form: _Form, kernel: Tensor, *, at_most: int) -> None:
        """Add a kernel; drop the least recently used until all take `at_most` bytes, or until it alone is left."""
        with self.lock:
            self.kernels[form] = kernel
            while len(self.kernels) > 1 and sum(each.nbytes for each in self.kernels.values()) > at_most:
                del self.kernels[next(iter(self.kernels))]
