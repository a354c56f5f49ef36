"""TVConv2d: a depthwise convolution with a learned kernel per position.

Chen et al., *TVConv: Efficient Translation Variant Convolution for Layout-aware Visual Processing*, CVPR 2022.

    O[:, i, j] = W ⊗ P[:, i, j]             (Eq. 1)  depthwise: one kernel W for all patches P
    O[:, i, j] = W[:, i, j] ⊗ P[:, i, j]    (Eq. 2)  translation-variant: c·k²·h·w weights, too many
    W' = B' A'                              (Eq. 3)  linear factorisation: c·k²·c_A + c_A·h·w
    W = B(A)                                (Eq. 4)  TVConv: affinity maps A (c_A, h, w), weight generator B

B is [3x3 convolution, layer norm over (channels, h, w), ReLU] repeated, then a 3x3 convolution to c·k² channels.

Where this departs from the paper and from its released code:

- "3 layers" counts as the released code does: an input block, 3 more blocks, the output convolution.
- The paper lets the operator start as a plain depthwise convolution. That holds inside only: zero padding in B's five
  convolutions reaches five positions in, so that at the start the inner (h - 10) x (w - 10) kernels are equal.
- W is cached at inference, as the paper describes; the released code generates it at every forward pass.
- `stride` and `resample` are ours. The paper names the fixed size of A as a limit and suggests resampling A; here W is
  resampled, because B's layer norms have the size of A.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fundus_seg.ops.kernel_cache import Size
from fundus_seg.ops.translation_variant import KERNEL_CACHE_BYTES, Resample, TranslationVariantConv2d


class TVConv2d(TranslationVariantConv2d):
    """Translation-variant depthwise convolution, W = B(A) (TVConv, CVPR 2022, Eq. 2 and 4); no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2, h = (H - 1) // stride + 1 and w likewise. When W is
    cached and how it is resampled: see `TranslationVariantConv2d`.

    Args:
        channels: C.
        size: (h, w) of the *output* map, and of A.
        kernel_size: k, odd.
        stride: step between output positions, in input pixels.
        affinity_channels: c_A. A is a parameter (c_A, h, w) that starts at 1.
        generator_channels: width of B.
        generator_layers: blocks in B after the input block.
        resample: "bilinear" resamples W to whatever size the map at hand has; None refuses other sizes.
        kernel_cache_bytes: what all kept kernels may take, and what one resampled kernel may.

    The convolutions of B start from `kaiming_normal_` (fan-in), so that W starts with an rms near 1.

    Raises:
        ValueError, MemoryError: as `TranslationVariantConv2d`.
    """

    def __init__(
        self,
        channels: int,
        size: Size,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        affinity_channels: int = 4,
        generator_channels: int = 64,
        generator_layers: int = 3,
        resample: Resample = None,
        kernel_cache_bytes: int = KERNEL_CACHE_BYTES,
    ) -> None:
        super().__init__(
            channels, size, kernel_size, stride=stride, resample=resample, kernel_cache_bytes=kernel_cache_bytes
        )
        self.affinity_maps = nn.Parameter(torch.ones(affinity_channels, *size))
        widths = [affinity_channels] + [generator_channels] * (generator_layers + 1)
        self.generator = nn.Sequential(
            *(_generator_block(before, after, size) for before, after in pairwise(widths)),
            _conv3x3(generator_channels, channels * kernel_size**2),
        )

    def _generate(self) -> Tensor:
        weight: Tensor = self.generator(self.affinity_maps[None])  # (1, C·k², h, w)
        return weight.view(self.channels, self.kernel_size**2, *self.size)


def _generator_block(in_channels: int, out_channels: int, size: tuple[int, int]) -> nn.Sequential:
    """A layer norm, not a batch norm: A has no batch."""
    return nn.Sequential(_conv3x3(in_channels, out_channels), nn.LayerNorm((out_channels, *size)), nn.ReLU())


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv
