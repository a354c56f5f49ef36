"""Involution2d: a kernel for each position, made from the channels of that position alone, shared by many channels.

D. Li et al., *Involution: Inverting the Inherence of Convolution for Visual Recognition*, CVPR 2021.

    Y[i, j, c] = Σ_(u, v) H[i, j, u, v, g] X[i + u, j + v, c]       (Eq. 4)  c in group g of G
    H[i, j] = W_1 σ(W_0 X[i, j])                                    (Eq. 6)  C / r values between; σ: batch norm, ReLU

The paper's sizes: a 7x7 window, 16 channels a group, r = 4. Where this departs from the paper: where 16 does not divide
the channels, a group has the largest number below it that does. W_1 has a bias, and both start He-normal.
"""

from __future__ import annotations

from torch import Tensor, nn

from fundus_seg.ops.compared.windows import largest_divisor, window_sums
from fundus_seg.ops.plain import conv2d


class Involution2d(nn.Module):
    """Involution (CVPR 2021, Eq. 4 and 6).

    x: (B, C, H, W) -> (B, C, H, W), of any size, with zero padding k // 2.

    Args:
        channels: C.
        kernel_size: k, odd.
        group_channels: channels that share a kernel, at most.
        reduction: r; the layer between has C // r channels, at least 1.
    """

    def __init__(self, channels: int, kernel_size: int = 7, *, group_channels: int = 16, reduction: int = 4) -> None:
        super().__init__()
        self.groups = channels // largest_divisor(channels, group_channels)
        hidden = max(1, channels // reduction)
        self.generator = nn.Sequential(
            conv2d(channels, hidden),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            conv2d(hidden, self.groups * kernel_size**2, bias=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        return window_sums(x, self.generator(x).unflatten(1, (self.groups, -1)))
