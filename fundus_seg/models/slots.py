"""Operators in the place of a 3x3 depthwise convolution, whatever network it stands in and whatever its stride.

A slot is a function (channels, size, stride) -> a module that maps (B, channels, H, W) to (B, channels, h, w), where
`size` (h, w) is that of the output at the training size, (H - 1) // stride + 1 and likewise for the width. The
operators that have one kernel for each position learn it for this size, and resample it for maps of another size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.ops import LinearTVConv2d, TVConv2d, UntiedConv2d
from fundus_seg.ops.compared import (
    AxialAttention2d,
    CondConv2d,
    DDF2d,
    DYConvDepthwise2d,
    Involution2d,
    SASA2d,
    WeightNet2d,
)

Size = tuple[int, int]
Slot = Callable[[int, Size, int], nn.Module]
"""channels, size of the output map, stride -> a module."""


class Thinned(nn.Module):
    """x: (B, C, H, W) -> (B, C, h, w): every `stride`-th row and column of the map, from the first.

    Behind a convolution of stride 1 and padding k // 2, this is the convolution of that stride.

    Args:
        stride: step between the rows and columns that stay.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, h, w)."""
        return x[..., :: self.stride, :: self.stride]


def _with_stride(operator: Callable[..., nn.Module]) -> Slot:
    def slot(channels: int, size: Size, stride: int) -> nn.Module:
        return operator(channels, size, stride=stride, resample="bilinear")

    return slot


def _thinned(operator: Callable[[int], nn.Module]) -> Slot:
    """An operator that keeps the size of the map: it computes the whole map, of which a stride takes a part."""

    def slot(channels: int, size: Size, stride: int) -> nn.Module:
        return operator(channels) if stride == 1 else nn.Sequential(operator(channels), Thinned(stride))

    return slot


def _axial(channels: int, size: Size, stride: int) -> nn.Module:
    height, width = size
    return _thinned(partial(AxialAttention2d, size=(height * stride, width * stride)))(channels, size, stride)


DEPTHWISE = "depthwise"
"""Name of the network's own convolution, which stays where it is."""
SLOTS: dict[str, Slot] = {
    "tvconv": _with_stride(TVConv2d),
    "untied": _with_stride(UntiedConv2d),
    "linear": _with_stride(LinearTVConv2d),
    "condconv": _thinned(CondConv2d),
    "weightnet": _thinned(WeightNet2d),
    "dyconv-dw": _thinned(DYConvDepthwise2d),
    "involution": _thinned(Involution2d),
    "ddf": _thinned(DDF2d),
    "sasa": _thinned(SASA2d),
    "axial": _axial,
}
"""The operators of `fundus_seg.builtins.OPERATORS` that can stand in such a slot, at the sizes of their papers."""


def slot(operator: str | Slot) -> Slot | None:
    """The slot of a name; None for "depthwise", and a slot as it is.

    Raises:
        UsageError: the name is unknown.
    """
    if not isinstance(operator, str):
        return operator
    if operator != DEPTHWISE and operator not in SLOTS:
        raise UsageError(unknown_name("depthwise operator", operator, [DEPTHWISE, *SLOTS]))
    return SLOTS.get(operator)
