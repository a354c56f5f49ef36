"""Translation-variant convolution: the function on tensors and the modules that hold or learn its kernels."""

from fundus_seg.ops.baked import BakedTVConv2d
from fundus_seg.ops.functional import translation_variant_conv2d
from fundus_seg.ops.translation_variant import TranslationVariantConv2d
from fundus_seg.ops.tvconv import TVConv2d

__all__ = ["BakedTVConv2d", "TVConv2d", "TranslationVariantConv2d", "translation_variant_conv2d"]
