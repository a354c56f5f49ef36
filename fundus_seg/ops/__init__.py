"""Convolutions that know their position: the function on tensors, and the modules that hold or learn its kernels.

Read the files in this order:

1. `functional`: what is computed, on plain tensors, with all checks: `translation_variant_conv2d`.
2. `tvconv`: `TVConv2d`, the paper's operator, which generates the kernels.
3. `translation_variant`: the base class of all modules here: how kernels are cached, resampled and applied.
4. `untied`, `baked`: modules with free, factorised and constant kernels; `moved`, `dynamic_bias`: the two extensions of
   TVConv that its paper names.
5. `autograd`: the derivatives of the function.
6. `dispatch`: which backend computes it, and `using`, which chooses one.
7. `portable`, the backend of torch operations and the easiest to read; then `native` (C++, `native.cpp`) and
   `triton_backend` (CUDA), which compute the same faster. `layout` has the memory layouts that the three share.

`fundus_seg.ops.compared` has the operators of other papers that TVConv is compared with.
"""

from fundus_seg.ops.baked import BakedTVConv2d
from fundus_seg.ops.dynamic_bias import DynamicBias2d
from fundus_seg.ops.functional import translation_variant_conv2d
from fundus_seg.ops.moved import MovedTVConv2d
from fundus_seg.ops.translation_variant import TranslationVariantConv2d
from fundus_seg.ops.tvconv import TVConv2d
from fundus_seg.ops.untied import LinearTVConv2d, UntiedConv2d

__all__ = [
    "BakedTVConv2d",
    "DynamicBias2d",
    "LinearTVConv2d",
    "MovedTVConv2d",
    "TVConv2d",
    "TranslationVariantConv2d",
    "UntiedConv2d",
    "translation_variant_conv2d",
]
