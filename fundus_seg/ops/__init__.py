"""Convolutions that know their position: the function on tensors and the modules that hold or learn its kernels."""

from fundus_seg.ops.baked import BakedTVConv2d
from fundus_seg.ops.coordinates import AddCoords
from fundus_seg.ops.functional import translation_variant_conv2d
from fundus_seg.ops.translation_variant import TranslationVariantConv2d
from fundus_seg.ops.tvconv import TVConv2d
from fundus_seg.ops.untied import LinearTVConv2d, UntiedConv2d

__all__ = [
    "AddCoords",
    "BakedTVConv2d",
    "LinearTVConv2d",
    "TVConv2d",
    "TranslationVariantConv2d",
    "UntiedConv2d",
    "translation_variant_conv2d",
]
