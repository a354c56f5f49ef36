"""Two simpler ways to a kernel per position, to tell what TVConv's generator adds (TVConv, CVPR 2022).

    W free, (c, k², h, w)                   (Eq. 2)  UntiedConv2d: c·k²·h·w weights
    W' = B' A'                              (Eq. 3)  LinearTVConv2d: c·k²·c_A + c_A·h·w weights

Both start as a plain depthwise convolution, one He-normal kernel for all positions: whatever they score above the
depthwise convolution, training found by telling positions apart, and no draw of h·w kernels stands in its way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fundus_seg.ops.kernel_cache import Size
from fundus_seg.ops.translation_variant import KERNEL_CACHE_BYTES, Resample, TranslationVariantConv2d


class UntiedConv2d(TranslationVariantConv2d):
    """Depthwise convolution with a free kernel per position (TVConv, CVPR 2022, Eq. 2), "locally connected"; no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2; arguments and errors are `TranslationVariantConv2d`'s.
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
        super().__init__(
            channels, size, kernel_size, stride=stride, resample=resample, kernel_cache_bytes=kernel_cache_bytes
        )
        shared = torch.empty(channels, kernel_size**2, 1, 1)
        nn.init.kaiming_normal_(shared)  # fan-in k²
        self.weight = nn.Parameter(shared.repeat(1, 1, *size))

    def _generate(self) -> Tensor:
        return self.weight


class LinearTVConv2d(TranslationVariantConv2d):
    """Translation-variant depthwise convolution, W' = B' A' (TVConv, CVPR 2022, Eq. 3); no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2; the other arguments and the errors are
    `TranslationVariantConv2d`'s.

    Args:
        affinity_channels: c_A.

    Each channel's kernel at a position is a sum of c_A learned kernels, weighted by the c_A affinities there. A' starts
    at 1, as TVConv's A does, and B' He-normal for c_A·k² terms, so that W' is that of a depthwise convolution. The
    random columns of B' give the maps of A' gradients of their own, and from the second step on those tell the columns
    apart in turn.
    """

    def __init__(
        self,
        channels: int,
        size: Size,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        affinity_channels: int = 4,
        resample: Resample = None,
        kernel_cache_bytes: int = KERNEL_CACHE_BYTES,
    ) -> None:
        super().__init__(
            channels, size, kernel_size, stride=stride, resample=resample, kernel_cache_bytes=kernel_cache_bytes
        )
        self.affinity_maps = nn.Parameter(torch.ones(affinity_channels, *size))
        self.basis = nn.Parameter(torch.empty(channels, kernel_size**2, affinity_channels))
        nn.init.kaiming_normal_(self.basis)  # fan-in k²·c_A

    def _generate(self) -> Tensor:
        return torch.tensordot(self.basis, self.affinity_maps, dims=1)
