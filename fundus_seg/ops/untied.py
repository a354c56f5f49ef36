"""Two simpler ways to a kernel per position, which show what TVConv's generator adds (TVConv, CVPR 2022).

    W free, (c, k², h, w)                   (Eq. 2)  UntiedConv2d: c·k²·h·w weights
    W' = B' A'                              (Eq. 3)  LinearTVConv2d: c·k²·c_A + c_A·h·w weights

Both start as a plain depthwise convolution, with one He-normal kernel for all positions. What they score above a
depthwise convolution, they gain in training by telling positions apart, and not by starting from h·w random kernels.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from fundus_seg.ops.translation_variant import KernelOptions, Size, TranslationVariantConv2d


class UntiedConv2d(TranslationVariantConv2d):
    """Depthwise convolution with a free kernel per position (TVConv, CVPR 2022, Eq. 2), "locally connected"; no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2. Arguments and errors are those of
    `TranslationVariantConv2d`.
    """

    def __init__(self, channels: int, size: Size, kernel_size: int = 3, **options: Unpack[KernelOptions]) -> None:
        super().__init__(channels, size, kernel_size, **options)
        shared = torch.empty(channels, kernel_size**2, 1, 1)
        nn.init.kaiming_normal_(shared)  # fan-in k²
        self.weight = nn.Parameter(shared.repeat(1, 1, *size))

    def _generate(self) -> Tensor:
        return self.weight


class LinearTVConv2d(TranslationVariantConv2d):
    """Translation-variant depthwise convolution, W' = B' A' (TVConv, CVPR 2022, Eq. 3); no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2.

    Args:
        channels, size, kernel_size, options: as in `TranslationVariantConv2d`.
        affinity_channels: c_A.

    Each channel's kernel at a position is a sum of c_A learned kernels, weighted by the c_A affinities there. A' starts
    at 1, as TVConv's A does, and B' He-normal for c_A·k² terms, so that W' starts as a depthwise convolution's. The
    random columns of B' give each map of A' another gradient, and from the second step on the maps of A' give each
    column of B' another gradient in turn.

    Raises:
        ValueError, MemoryError: as `TranslationVariantConv2d`.
    """

    def __init__(
        self,
        channels: int,
        size: Size,
        kernel_size: int = 3,
        *,
        affinity_channels: int = 4,
        **options: Unpack[KernelOptions],
    ) -> None:
        super().__init__(channels, size, kernel_size, **options)
        self.affinity_maps = nn.Parameter(torch.ones(affinity_channels, *size))
        self.basis = nn.Parameter(torch.empty(channels, kernel_size**2, affinity_channels))
        nn.init.kaiming_normal_(self.basis)  # fan-in k²·c_A

    def _generate(self) -> Tensor:
        return torch.tensordot(self.basis, self.affinity_maps, dims=1)
