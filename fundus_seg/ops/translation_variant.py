"""What every translation-variant convolution shares: its kernels kept, resampled to the map at hand, and applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.ops.functional import convolved_dtype, translation_variant_conv2d
from fundus_seg.ops.kernel_cache import KernelCache, Size
from fundus_seg.ops.layout import is_channels_last, kernel_in

KERNEL_CACHE_BYTES = 2**30

Resample = Literal["bilinear"] | None


class TranslationVariantConv2d(nn.Module, ABC):
    """Depthwise convolution with a kernel per position (TVConv, CVPR 2022, Eq. 2); no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2, h = (H - 1) // stride + 1 and w likewise. A subclass
    says in `_generate` what the kernels W (C, k·k, h, w) are made of.

    Args:
        channels: C.
        size: (h, w) of the *output* map that W is made for.
        kernel_size: k, odd.
        stride: step between output positions, in input pixels.
        resample: "bilinear" resamples W to whatever size the map at hand has (align_corners False, antialiased where a
            side shrinks); None refuses other sizes.
        kernel_cache_bytes: what all kept kernels may take, and what one resampled kernel may.

    W is generated and resampled in the parameters' dtype even under autocast, because every image shares its rounding
    errors; `translation_variant_conv2d` then casts it together with x.

    Kernels are cached, one for each size, dtype and layout of map, while the module is not training and no gradient
    of theirs is recorded; the least recently used are dropped to stay within `kernel_cache_bytes`, each module for
    itself. They are generated anew once a parameter is replaced, moved or written in place, or once a pass has
    recorded gradients. Writes that autograd does not count (`parameter.data.copy_(...)`, a fused optimizer step right
    after a pass without gradients) need `drop_kernel_cache()`. Under `torch.compile` and `torch.export` the
    generation of W is part of the graph.

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
        self._cached: KernelCache | None = None

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
        """W: (C, k·k, h, w), taps in row-major order, for the module's own size or that of another map.

        May be the cached tensor, or a parameter: do not write to it.
        """
        return self._kernel(size or self.size, next(self.parameters()).dtype, channels_last=False)

    def _kernel(self, size: Size, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
        """W as a map of this size, dtype and layout takes it, kept where it may be."""
        parameters = tuple(self.parameters())
        if self.training or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
            self.drop_kernel_cache()  # an optimizer step is likely to follow, and a fused one leaves no trace
            return self._make(size)
        # A graph that is being compiled must not keep a kernel; tensors made in inference mode count no writes.
        if torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
            return self._make(size)
        cached = self._cached
        if cached is None or not cached.made_from(parameters):
            cached = self._cached = KernelCache.of(parameters)
        form = (size, dtype, channels_last)
        kernel = cached.get(form)
        if kernel is None:
            kernel = kernel_in(self._make(size).to(dtype), channels_last)
            cached.keep(form, kernel, at_most=self.kernel_cache_bytes)
        return kernel

    def drop_kernel_cache(self) -> None:
        """Forget the cached kernels; needed only after writes to a parameter that autograd does not count."""
        self._cached = None

    def _make(self, size: Size) -> Tensor:
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return self._generate() if size == self.size else self._resampled(size)

    def _resampled(self, size: Size) -> Tensor:
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
        own = self.kernel()
        shrinks = height < own_height or width < own_width
        # On the CPU torch antialiases no 16-bit floats.
        exact = own.float() if own.element_size() < 4 else own
        return F.interpolate(exact, size, mode="bilinear", align_corners=False, antialias=shrinks).to(own.dtype)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; training drops the cached kernels."""
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
        """What `print` shows between the parentheses."""
        options = f"{self.channels}, size={self.size}, kernel_size={self.kernel_size}, stride={self.stride}"
        return options if self.resample is None else f"{options}, resample={self.resample!r}"
