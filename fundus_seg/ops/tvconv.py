"""TVConv2d: a depthwise convolution with a learned kernel per position.

Chen et al., *TVConv: Efficient Translation Variant Convolution for Layout-aware Visual Processing*, CVPR 2022.

    O[:, i, j] = W ⊗ P[:, i, j]             (Eq. 1)  depthwise: one kernel W for all patches P
    O[:, i, j] = W[:, i, j] ⊗ P[:, i, j]    (Eq. 2)  translation-variant: c·k²·h·w weights, too many
    W' = B' A'                              (Eq. 3)  linear factorisation: c·k²·c_A + c_A·h·w
    W = B(A)                                (Eq. 4)  TVConv: affinity maps A (c_A, h, w), weight generator B

B is [3x3 convolution, layer norm over (channels, h, w), ReLU] repeated, then a 3x3 convolution to c·k² channels.

Where this departs from the paper and from its released code:

- "3 layers" are counted as in the released code: an input block, 3 more blocks, the output convolution.
- In the paper the operator starts as a plain depthwise convolution. That holds in the interior only: the zero padding
  of B's five convolutions reaches five positions in, so that the inner (h - 10) x (w - 10) kernels are equal at first.
- W is cached at inference, as the paper describes; the released code generates it at every forward pass.
- `affinity_start`, `norm_affines` and `padding` are for ablations; their defaults change nothing.
- `stride` and `resample` are additions. The paper names the fixed size of A as a limit and suggests resampling A; here
  W is resampled, because B's layer norms have the size of A.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.ops.plain import conv2d
from fundus_seg.ops.translation_variant import KernelOptions, Size, TranslationVariantConv2d

AffinityStart = Literal["ones", "random", "data"]


class TVConv2d(TranslationVariantConv2d):
    """Translation-variant depthwise convolution, W = B(A) (TVConv, CVPR 2022, Eq. 2 and 4); no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2, h = (H - 1) // stride + 1 and w likewise.
    `TranslationVariantConv2d` says when W is cached and how it is resampled.

    Args:
        channels: C, of x and of what is returned.
        size: (h, w) of the *output* map, and of A.
        kernel_size: k, odd.
        affinity_channels: c_A. A is a parameter (c_A, h, w) that starts at 1.
        generator_channels: width of B.
        generator_layers: blocks in B after the input block.
        affinity_start: "ones"; "random" for A from a standard normal distribution; or "data" for maps of the training
            photographs, which `start_from` takes: A is 1 until then.
        norm_affines: whether each layer norm of B has a scale and a shift for each channel and position.
        padding: "zeros", or "replicate" for convolutions of B that pad A and their maps by the nearest value. With A
            constant, no affines and "replicate", W is the same at every position: a depthwise convolution.
        options: `stride`, the step between output positions in input pixels (default 1); `resample`, "bilinear" to
            resample W to the size of the map at hand (default None: other sizes are refused); `kernel_cache_bytes`,
            the bytes that the cached kernels may take together (default 1 GiB).

    The convolutions of B start from `kaiming_normal_` (fan-in), so that W starts with an rms near 1.

    Raises:
        ValueError, MemoryError: as `TranslationVariantConv2d`.

    Examples:
        >>> layer = TVConv2d(8, size=(16, 16), resample="bilinear")
        >>> layer(torch.zeros(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
        >>> layer.kernel().shape  # a 3x3 kernel for each channel and position
        torch.Size([8, 9, 16, 16])
        >>> layer(torch.zeros(2, 8, 25, 40)).shape  # the kernels are resampled to this map
        torch.Size([2, 8, 25, 40])
    """

    def __init__(
        self,
        channels: int,
        size: Size,
        kernel_size: int = 3,
        *,
        affinity_channels: int = 4,
        generator_channels: int = 64,
        generator_layers: int = 3,
        affinity_start: AffinityStart = "ones",
        norm_affines: bool = True,
        padding: Literal["zeros", "replicate"] = "zeros",
        **options: Unpack[KernelOptions],
    ) -> None:
        super().__init__(channels, size, kernel_size, **options)
        make = torch.randn if affinity_start == "random" else torch.ones
        self.affinity_start = affinity_start
        self.affinity_maps = nn.Parameter(make(affinity_channels, *size))
        widths = [affinity_channels] + [generator_channels] * (generator_layers + 1)
        conv = partial(conv2d, kernel_size=3, padding_mode=padding)
        self.generator = nn.Sequential(
            *(  # a layer norm, not a batch norm, because A has no batch
                nn.Sequential(
                    conv(before, after), nn.LayerNorm((after, *size), elementwise_affine=norm_affines), nn.ReLU()
                )
                for before, after in pairwise(widths)
            ),
            conv(generator_channels, channels * kernel_size**2),
        )

    @torch.no_grad()
    def start_from(self, maps: Tensor) -> None:
        """Let A start from maps (n, H, W): its map i from map i modulo n, averaged over what each position covers."""
        small = F.adaptive_avg_pool2d(maps, self.size)
        self.affinity_maps.copy_(small[torch.arange(len(self.affinity_maps)) % len(small)])

    def _generate(self) -> Tensor:
        return self._generated(self.affinity_maps[None])[0]

    def _generated(self, maps: Tensor) -> Tensor:
        """Affinity maps (B, c_A, h, w) -> the kernels that the generator makes of each, (B, C, k·k, h, w)."""
        weight: Tensor = self.generator(maps)
        return weight.unflatten(1, (self.channels, -1))
