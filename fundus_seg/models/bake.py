"""A trained network with its translation-variant kernels as constants."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights

from fundus_seg.ops import BakedTVConv2d, TranslationVariantConv2d


@torch.no_grad()
def bake(network: nn.Module) -> Any:
    """A copy for inference: each translation-variant convolution without its generator, its batch norm folded in.

    A batch norm that follows such a convolution in an `nn.Sequential` gives its scale to the kernels and its shift to
    a bias per channel, both from its running statistics, and leaves an `nn.Identity` in its place. Other batch norms
    stay. The logits are those of `network.eval()` up to rounding, at every size of image.

    The copy is for inference, in evaluation mode, and none of its parameters asks for a gradient: in training mode its
    other batch norms would follow the batch, its kernels would not. A `Predictor` takes it as it takes the network.
    Its state dict fits another baked network of the same `spec`: `bake(build_model(**spec)).load_state_dict(...)`.
    """
    holder = nn.Sequential(copy.deepcopy(network))
    for parent in list(holder.modules()):
        children = list(parent._modules.items())  # `named_children` names a shared module once
        for (name, op), (next_name, following) in pairwise([*children, ("", None)]):
            if not isinstance(op, TranslationVariantConv2d) or isinstance(op, BakedTVConv2d):
                continue
            kernel, bias = op.kernel(), None
            if isinstance(parent, nn.Sequential) and _is_constant(following):
                norm: Any = following
                kernel, bias = fuse_conv_bn_weights(
                    kernel, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(parent, next_name, nn.Identity())
            baked = BakedTVConv2d(
                kernel, bias, stride=op.stride, resample=op.resample, kernel_cache_bytes=op.kernel_cache_bytes
            )
            setattr(parent, name, baked)
    return holder.eval().requires_grad_(False)[0]


def _is_constant(norm: nn.Module | None) -> bool:
    """Whether it is a batch norm that scales and shifts by running statistics, not by those of the batch."""
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
