"""BakedTVConv2d: a translation-variant convolution with constant kernels."""

from __future__ import annotations

import math
from typing import Unpack

from torch import Tensor, nn

from fundus_seg.ops.translation_variant import KernelOptions, TranslationVariantConv2d


class BakedTVConv2d(TranslationVariantConv2d):
    """Translation-variant depthwise convolution for inference, with given kernels and a bias per channel.

        O[:, i, j] = W[:, i, j] ⊗ P[:, i, j] + b

    `fundus_seg.models.bake` makes these modules. `weight` and `bias` are parameters that require no gradient.

    Args:
        weight: W, (C, k·k, h, w), taps in row-major order.
        bias: b, (C,), or None.
        options: `stride`, `resample` and `kernel_cache_bytes`, as in `TranslationVariantConv2d`.

    Raises:
        ValueError, MemoryError: as `TranslationVariantConv2d`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, **options: Unpack[KernelOptions]) -> None:
        channels, taps, height, width = weight.shape
        super().__init__(channels, (height, width), math.isqrt(taps), **options)
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, h, w)."""
        out = super().forward(x)
        return out if self.bias is None else out.add_(self.bias[:, None, None])

    def _generate(self) -> Tensor:
        return self.weight
