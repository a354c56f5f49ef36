"""BakedTVConv2d: a translation-variant convolution whose kernels are constants."""

from __future__ import annotations

import math

from torch import Tensor, nn

from fundus_seg.ops.translation_variant import KERNEL_CACHE_BYTES, Resample, TranslationVariantConv2d


class BakedTVConv2d(TranslationVariantConv2d):
    """Translation-variant depthwise convolution with given kernels and a bias per channel, for inference.

        O[:, i, j] = W[:, i, j] ⊗ P[:, i, j] + b

    `fundus_seg.models.bake` makes these. `weight` and `bias` are parameters that ask for no gradient.

    Args:
        weight: W, (C, k·k, h, w), taps in row-major order.
        bias: b, (C,), or None.
        stride, resample, kernel_cache_bytes: as in `TranslationVariantConv2d`.

    Raises:
        ValueError, MemoryError: as `TranslationVariantConv2d`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: int = 1,
        resample: Resample = None,
        kernel_cache_bytes: int = KERNEL_CACHE_BYTES,
    ) -> None:
        channels, taps, height, width = weight.shape
        super().__init__(
            channels,
            (height, width),
            math.isqrt(taps),
            stride=stride,
            resample=resample,
            kernel_cache_bytes=kernel_cache_bytes,
        )
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, h, w)."""
        out = super().forward(x)
        return out if self.bias is None else out.add_(self.bias[:, None, None])

    def _generate(self) -> Tensor:
        return self.weight
