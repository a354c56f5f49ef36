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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.ops.functional import translation_variant_conv2d


class TVConv2d(nn.Module):
    """Translation-variant depthwise convolution, W = B(A) (TVConv, CVPR 2022, Eq. 2 and 4); no bias.

    x: (B, C, H, W) -> (B, C, h, w), with zero padding k // 2, h = (H - 1) // stride + 1 and w likewise.

    Args:
        channels: C.
        size: (h, w) of the *output* map, and of A.
        kernel_size: k, odd.
        stride: step between output positions, in input pixels.
        affinity_channels: c_A. A is a parameter (c_A, h, w) that starts at 1.
        generator_channels: width of B.
        generator_layers: blocks in B after the input block.
        resample: "bilinear" resamples W to whatever size the map at hand has; None refuses other sizes.

    The convolutions of B start from `kaiming_normal_` (fan-in), so that W starts with an rms near 1.

    W is generated in the parameters' dtype even under autocast, because every image shares its rounding errors;
    `translation_variant_conv2d` then casts it together with x.

    W is cached while the module is not training and no gradient is recorded, and generated anew once a parameter is
    replaced, moved or written in place, or once a pass has recorded gradients. Writes that autograd does not count
    (`parameter.data.copy_(...)`, a fused optimizer step right after a pass without gradients) need
    `drop_kernel_cache()`. Under `torch.compile` and `torch.export` the generator is part of the graph.

    Raises:
        ValueError: an even kernel size, an unknown `resample`; in `forward`, a map of another size than `size`.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        kernel_size: int = 3,
        *,
        stride: int = 1,
        affinity_channels: int = 4,
        generator_channels: int = 64,
        generator_layers: int = 3,
        resample: Literal["bilinear"] | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}: pass {kernel_size + 1}.")
        if resample not in (None, "bilinear"):
            raise ValueError(f"unknown resample {resample!r}: pass 'bilinear' or None.")
        self.channels = channels
        self.size = size
        self.kernel_size = kernel_size
        self.stride = stride
        self.resample = resample
        self.affinity_maps = nn.Parameter(torch.ones(affinity_channels, *size))
        widths = [affinity_channels] + [generator_channels] * (generator_layers + 1)
        self.generator = nn.Sequential(
            *(_generator_block(before, after, size) for before, after in pairwise(widths)),
            _conv3x3(generator_channels, channels * kernel_size**2),
        )
        self._cached: _CachedKernel | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, h, w)."""
        height, width = ((n - 1) // self.stride + 1 for n in x.shape[-2:])
        fits = (height, width) == self.size
        if not fits and self.resample is None:
            raise ValueError(
                f"TVConv2d was built for {self.size[0]}x{self.size[1]} feature maps, got {height}x{width}: "
                f"pass size=({height}, {width}), or resample='bilinear'."
            )
        weight = self.kernel()
        if not fits:
            weight = F.interpolate(weight, size=(height, width), mode="bilinear", align_corners=False)
        return translation_variant_conv2d(x, weight, stride=self.stride)

    def kernel(self) -> Tensor:
        """W: (C, k·k, h, w), taps in row-major order. May be the cached tensor: do not write to it."""
        if self.training or torch.is_grad_enabled():
            self.drop_kernel_cache()  # an optimizer step is likely to follow, and a fused one leaves no trace
            return self._generate()
        parameters = tuple(self.parameters())
        # A graph that is being compiled must not keep a kernel; tensors made in inference mode count no writes.
        if torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
            return self._generate()
        if self._cached is None or not self._cached.made_from(parameters):
            self._cached = _CachedKernel(self._generate(), parameters, tuple(p._version for p in parameters))
        return self._cached.kernel

    def drop_kernel_cache(self) -> None:
        """Forget the cached kernel; needed only after writes to a parameter that autograd does not count."""
        self._cached = None

    def _generate(self) -> Tensor:
        with torch.autocast(self.affinity_maps.device.type, enabled=False):
            weight: Tensor = self.generator(self.affinity_maps[None])  # (1, C·k², h, w)
        return weight.view(self.channels, self.kernel_size**2, *self.size)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; training drops the cached kernel."""
        if mode:
            self.drop_kernel_cache()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Dtype and device moves swap `.data` below a parameter that keeps its identity and version.
        self.drop_kernel_cache()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_cached": None}

    def extra_repr(self) -> str:
        """What `print` shows between the parentheses."""
        options = f"{self.channels}, size={self.size}, kernel_size={self.kernel_size}, stride={self.stride}"
        return options if self.resample is None else f"{options}, resample={self.resample!r}"


@dataclass(frozen=True)
class _CachedKernel:
    kernel: Tensor
    parameters: tuple[nn.Parameter, ...]  # kept alive, so that none of a later set can be taken for one of these
    versions: tuple[int, ...]

    def made_from(self, parameters: tuple[nn.Parameter, ...]) -> bool:
        """Whether these are the very parameters of the kernel, not written to since."""
        return len(parameters) == len(self.parameters) and all(
            p is q and p._version == version
            for p, q, version in zip(parameters, self.parameters, self.versions, strict=True)
        )


def _generator_block(in_channels: int, out_channels: int, size: tuple[int, int]) -> nn.Sequential:
    """A layer norm, not a batch norm: A has no batch."""
    return nn.Sequential(_conv3x3(in_channels, out_channels), nn.LayerNorm((out_channels, *size)), nn.ReLU())


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv
