"""DynamicBias2d: a bias for each image, channel and position, predicted from the image, beside another operator.

The TVConv paper (CVPR 2022) suggests a dynamic bias per pixel for layouts that change strongly: what TVConv cannot know
by position then comes from the image. It gives no form. Here it is

    O'[:, i, j] = O[:, i, j] + V_1 ReLU(V_0 x[:, s·i, s·j]) + v      C // 16 values between; stride s

with V_1 and v 0 at the start, so that training starts from the operator alone. The 16 is the reduction of J. Hu et al.,
*Squeeze-and-Excitation Networks*, CVPR 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fundus_seg.ops.plain import conv2d


class DynamicBias2d(nn.Module):
    """An operator with a dynamic bias: x (B, C, H, W) -> (B, C, h, w), h = (H - 1) // stride + 1 and w likewise.

    Its weights draw no number from torch's generator: the network around it starts as it starts without it.

    Args:
        operator: maps x to (B, C, h, w).
        channels: C.
        stride: that of the operator.
        reduction: C // reduction values lie between, at least 1.
    """

    def __init__(self, operator: nn.Module, channels: int, *, stride: int = 1, reduction: int = 16) -> None:
        super().__init__()
        self.operator = operator
        self.stride = stride
        hidden = max(1, channels // reduction)
        with torch.random.fork_rng(devices=[]):
            last = conv2d(hidden, channels, bias=True)
            self.bias = nn.Sequential(conv2d(channels, hidden), nn.ReLU(inplace=True), last)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, h, w)."""
        out: Tensor = self.operator(x) + self.bias(x[..., :: self.stride, :: self.stride])
        return out
