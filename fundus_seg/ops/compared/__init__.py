"""The operators that the TVConv paper compares with, each written from the equations of its own paper.

    kernels per image       condconv, weightnet, dyconv (on the depthwise or on the pointwise convolutions)
    kernels per position    involution, ddf: made from the image, so no position is known by itself
    attention               sasa, in a window; axial, along rows and columns
    another family          mlp_mixer: no convolution to replace, so it replaces the whole ASPP

All but the last keep the number of channels and the size of the map, and stand where the 3x3 depthwise convolution of
an inverted residual block stands. Their sizes (experts, heads, groups, windows, reductions) are those of their papers.
As in the TVConv paper, one width scales them all: that of the block.

`per_image` and `windows` have what they share. A kernel that all images share is no different from a parameter; here
every image has its own, so nothing can be baked.
"""

from fundus_seg.ops.compared.axial import AxialAttention2d
from fundus_seg.ops.compared.condconv import CondConv2d
from fundus_seg.ops.compared.ddf import DDF2d
from fundus_seg.ops.compared.dyconv import DYConvDepthwise2d, DYConvPointwise2d
from fundus_seg.ops.compared.involution import Involution2d
from fundus_seg.ops.compared.mlp_mixer import MLPMixer2d
from fundus_seg.ops.compared.sasa import SASA2d
from fundus_seg.ops.compared.weightnet import WeightNet2d

__all__ = [
    "AxialAttention2d",
    "CondConv2d",
    "DDF2d",
    "DYConvDepthwise2d",
    "DYConvPointwise2d",
    "Involution2d",
    "MLPMixer2d",
    "SASA2d",
    "WeightNet2d",
]
