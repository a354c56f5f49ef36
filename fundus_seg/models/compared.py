"""The operators that the TVConv paper compares beside its own, where `depthwise` has its 3x3 depthwise convolution.

Each stands in the inverted residual block of `fundus_seg.models.operators`, without dilation, and `expansion` scales it
as the paper's width multiplier does. `dyconv-pw` replaces the two pointwise convolutions of the block instead, and
`mlp-mixer` the whole ASPP. The numbers of parameters are those of the whole network, `build_model(op)`.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from fundus_seg.models.aspp import projection
from fundus_seg.models.blocks import depthwise, inverted_residual
from fundus_seg.models.operators import BranchSettings
from fundus_seg.ops.compared import (
    AxialAttention2d,
    CondConv2d,
    DDF2d,
    DYConvDepthwise2d,
    DYConvPointwise2d,
    Involution2d,
    MLPMixer2d,
    SASA2d,
    WeightNet2d,
)


def condconv_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 3x3 CondConv. 6,810,594 parameters."""
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, CondConv2d)


def weightnet_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 3x3 depthwise convolution by WeightNet. 8,538,954 parameters."""
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, WeightNet2d)


def dyconv_depthwise_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 3x3 depthwise DYConv. 9,352,206 parameters."""
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, DYConvDepthwise2d)


def dyconv_pointwise_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block of two pointwise DYConvs around a 3x3 depthwise convolution. 19,231,050 parameters."""
    width = settings.expansion * in_channels
    return inverted_residual(in_channels, out_channels, width, depthwise, DYConvPointwise2d)


def involution_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 7x7 involution. 17,602,314 parameters."""
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, Involution2d)


def ddf_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 3x3 decoupled dynamic filter. 28,584,579 parameters."""
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, DDF2d)


def sasa_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around self-attention in 7x7 windows. 39,567,714 parameters."""
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, SASA2d)


def axial_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around axial attention. 50,768,322 parameters."""
    axial = partial(AxialAttention2d, size=settings.size)
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, axial)


def mlp_mixer(in_channels: int, channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """MLP-Mixer in place of the whole ASPP, before the ASPP's projection and dropout. 7,403,234 parameters.

    Neither `rate` nor `expansion` says anything of it; `aspp_channels` is its width.
    """
    return nn.Sequential(MLPMixer2d(in_channels, channels, settings.size), projection(channels, channels))
