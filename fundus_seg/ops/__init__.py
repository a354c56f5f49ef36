"""Convolutions that know their position: the function on tensors and the modules that learn its kernels."""

from fundus_seg.ops.coordinates import AddCoords
from fundus_seg.ops.functional import translation_variant_conv2d
from fundus_seg.ops.tvconv import TVConv2d
from fundus_seg.ops.untied import LinearTVConv2d, UntiedConv2d

__all__ = ["AddCoords", "LinearTVConv2d", "TVConv2d", "UntiedConv2d", "translation_variant_conv2d"]
