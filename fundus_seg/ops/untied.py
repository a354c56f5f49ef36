"""Two simpler ways to a kernel per position, to tell what TVConv's generator adds (TVConv, CVPR 2022).

    W free, (c, k², h, w)                   (Eq. 2)  UntiedConv2d: c·k²·h·w weights
    W' = B' A'                              (Eq. 3)  LinearTVConv2d: c·k²·c_A + c_A·h·w weights

Both start as a plain depthwise convolution, one He-normal kernel for all positions: whatever they score above the
depthwise convolution, training found by telling positions apart, and no draw of h·w kernels stands in its way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fundus_seg.ops.functional import translation_variant_conv2d


class _KernelPerPosition(nn.Module, ABC):
    """x: (B, C, h, w) -> (B, C, h, w), zero padding k // 2, no bias; a subclass gives the kernels."""

    def __init__(self, channels: int, size: tuple[int, int], kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}: pass {kernel_size + 1}.")
        self.channels = channels
        self.size = size
        self.kernel_size = kernel_size

    @abstractmethod
    def kernel(self) -> Tensor:
        """W: (C, k·k, h, w), taps in row-major order."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, h, w) to (B, C, h, w)."""
        height, width = x.shape[-2:]
        if (height, width) != self.size:
            raise ValueError(
                f"{type(self).__name__} was built for {self.size[0]}x{self.size[1]} feature maps, got "
                f"{height}x{width}: pass size=({height}, {width})."
            )
        return translation_variant_conv2d(x, self.kernel())

    def extra_repr(self) -> str:
        """What `print` shows between the parentheses."""
        return f"{self.channels}, size={self.size}, kernel_size={self.kernel_size}"


class UntiedConv2d(_KernelPerPosition):
    """Depthwise convolution with a free kernel per position (TVConv, CVPR 2022, Eq. 2), "locally connected"; no bias.

    x: (B, C, h, w) -> (B, C, h, w), with zero padding k // 2.

    Args:
        channels: C.
        size: (h, w) of the map.
        kernel_size: k, odd.

    Raises:
        ValueError: an even kernel size; in `forward`, a map of another size than `size`.
    """

    def __init__(self, channels: int, size: tuple[int, int], kernel_size: int = 3) -> None:
        super().__init__(channels, size, kernel_size)
        shared = torch.empty(channels, kernel_size**2, 1, 1)
        nn.init.kaiming_normal_(shared)  # fan-in k²
        self.weight = nn.Parameter(shared.repeat(1, 1, *size))

    def kernel(self) -> Tensor:
        """W: (C, k·k, h, w), taps in row-major order; the parameter itself."""
        return self.weight


class LinearTVConv2d(_KernelPerPosition):
    """Translation-variant depthwise convolution, W' = B' A' (TVConv, CVPR 2022, Eq. 3); no bias.

    x: (B, C, h, w) -> (B, C, h, w), with zero padding k // 2.

    Each channel's kernel at a position is a sum of c_A learned kernels, weighted by the c_A affinities there. A' starts
    at 1, as TVConv's A does, and B' He-normal for c_A·k² terms, so that W' is that of a depthwise convolution. The
    random columns of B' give the maps of A' gradients of their own, and from the second step on those tell the columns
    apart in turn.

    Args:
        channels: C.
        size: (h, w) of the map, and of A'.
        kernel_size: k, odd.
        affinity_channels: c_A.

    W' is made in the parameters' dtype even under autocast, as TVConv2d's is.

    Raises:
        ValueError: an even kernel size; in `forward`, a map of another size than `size`.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], kernel_size: int = 3, *, affinity_channels: int = 4
    ) -> None:
        super().__init__(channels, size, kernel_size)
        self.affinity_maps = nn.Parameter(torch.ones(affinity_channels, *size))
        self.basis = nn.Parameter(torch.empty(channels, kernel_size**2, affinity_channels))
        nn.init.kaiming_normal_(self.basis)  # fan-in k²·c_A

    def kernel(self) -> Tensor:
        """W': (C, k·k, h, w), taps in row-major order."""
        with torch.autocast(self.basis.device.type, enabled=False):
            return torch.tensordot(self.basis, self.affinity_maps, dims=1)
