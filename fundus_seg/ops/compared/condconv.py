"""CondConv2d: the kernel of each image is a sum of experts, weighted by what the image holds.

B. Yang et al., *CondConv: Conditionally Parameterized Convolutions for Efficient Inference*, NeurIPS 2019.

    W(x) = α_1 W_1 + ... + α_n W_n          (section 3)  n experts W_i, kernels of a depthwise convolution here
    α = r(x) = Sigmoid(GlobalAveragePool(x) R)           one routing weight per expert and image

n = 8, as in the paper's main results. Where this departs from the paper:

- The paper finds dropout on the routing weights useful in long trainings on ImageNet; there is none here.
- The routing matrix R starts He-normal with gain 1, near α = 1/2 for all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fundus_seg.ops.compared.per_image import image_mean, per_image_depthwise


class CondConv2d(nn.Module):
    """Depthwise convolution, W = Σ_i α_i W_i for each image (CondConv, NeurIPS 2019); no bias.

    x: (B, C, H, W) -> (B, C, H, W), of any size, with zero padding k // 2.

    Args:
        channels: C.
        kernel_size: k, odd.
        experts: n.
    """

    def __init__(self, channels: int, kernel_size: int = 3, *, experts: int = 8) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.empty(experts, channels, kernel_size**2))
        nn.init.normal_(self.experts, std=math.sqrt(2) / kernel_size)  # He-normal: fan-in k²
        self.routing = nn.Linear(channels, experts, bias=False)
        nn.init.kaiming_normal_(self.routing.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        alpha = self.routing(image_mean(x)).sigmoid()  # (B, n)
        weight = (alpha @ self.experts.flatten(1)).unflatten(1, self.experts.shape[1:])  # (B, C, k²)
        return per_image_depthwise(x, weight)
