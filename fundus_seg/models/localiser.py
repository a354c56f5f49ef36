"""The network that sees a whole photograph and shows where the optic disc lies.

A small U-Net of separable convolutions (A. Howard et al.: MobileNets. 2017, arXiv 1704.04861; O. Ronneberger, P.
Fischer, T. Brox: U-Net. MICCAI 2015, arXiv 1505.04597). It goes down to a stride of 32, where its view spans the whole
photograph: that tells the disc, where vessels meet, from a bright spot. It comes up again to a stride of 4.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from fundus_seg.errors import CheckpointError
from fundus_seg.ops.upsampling import upsample_bilinear

LOOK = 192
"""Height and width of the photograph that the network sees."""
STRIDE = 4
"""Pixels that the network sees for each that it gives."""
SHIPPED = Path(__file__).with_name("localiser.safetensors")
"""The weights that come with the package; `fundus-seg data localiser` makes them again."""
_WIDTHS = (16, 32, 56, 88, 128)
_WIDTH_UP = 48


class LocaliserNet(nn.Module):
    """Photographs (B, 3, 192, 192), scaled as for any network here, in; logits (B, 48, 48) of the disc out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, _WIDTHS[0], 3, stride=2), _Separable(_WIDTHS[0], _WIDTHS[0]))
        self.down = nn.ModuleList(
            nn.Sequential(_Separable(before, after, stride=2), _Separable(after, after, kernel=5))
            for before, after in pairwise(_WIDTHS)
        )
        self.across = nn.ModuleList(_conv(width, _WIDTH_UP, 1) for width in _WIDTHS[1:])
        self.up = nn.ModuleList(_Separable(_WIDTH_UP, _WIDTH_UP) for _ in _WIDTHS[2:])
        self.head = nn.Conv2d(_WIDTH_UP, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, h / 4, w / 4) of photographs (B, 3, h, w), h and w multiples of 32."""
        x = self.stem(x)
        levels = []
        for down, across in zip(self.down, self.across, strict=True):
            x = down(x)
            levels.append(across(x))
        x = levels.pop()
        for up in self.up:
            finer = levels.pop()
            x = up(upsample_bilinear(x, finer.shape[-2:]) + finer)
        logits: Tensor = self.head(x)
        return logits[:, 0]


class _Separable(nn.Module):
    """A depthwise convolution, then a pointwise one; their input is added where it has the same shape."""

    def __init__(self, before: int, after: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = _conv(before, before, kernel, stride=stride, groups=before)
        self.pointwise = _conv(before, after, 1)
        self.residual = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.pointwise(self.depthwise(x))
        return x + made if self.residual else made


def _conv(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def save_localiser(path: Path, network: LocaliserNet, about: dict[str, str]) -> None:
    """Write the weights in half precision, and what is said about them, in the format safetensors.

    Args:
        path: the file.
        network: the network.
        about: how it was made and what was measured, by name.
    """
    halves = {
        name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in halves.items()}, path, about)


def load_localiser(path: Path = SHIPPED) -> LocaliserNet:
    """Load the network from its file; it computes in float32.

    Raises:
        CheckpointError: the file is missing, or does not hold its weights.
    """
    network = LocaliserNet()
    try:
        with safe_open(path, "pt") as file:
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not the weights of a localiser; install fundus-seg again") from error
    return _without_norms(network.eval()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _without_norms(network: LocaliserNet) -> LocaliserNet:
    """The network with each batch norm folded into the convolution before it."""
    for block in network.modules():
        if (
            isinstance(block, nn.Sequential)
            and isinstance(block[0], nn.Conv2d)
            and isinstance(block[1], nn.BatchNorm2d)
        ):
            block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()
    return network
