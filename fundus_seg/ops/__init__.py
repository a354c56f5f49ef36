"""Translation-variant convolution: the function on tensors and the module that learns its kernels."""

from fundus_seg.ops.functional import translation_variant_conv2d
from fundus_seg.ops.tvconv import TVConv2d

__all__ = ["TVConv2d", "translation_variant_conv2d"]
