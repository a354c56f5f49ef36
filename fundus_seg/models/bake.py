"""Baking: the translation-variant kernels of a trained network become constants."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights

from fundus_seg.ops import BakedTVConv2d, MovedTVConv2d, TranslationVariantConv2d


@torch.no_grad()
def bake(network: nn.Module) -> Any:
    """A copy for inference: each translation-variant convolution loses its generator and takes in its batch norm.

    A batch norm that follows such a convolution in an `nn.Sequential` is folded in: its scale, from the running
    statistics, goes into the kernels, its shift into a bias per channel, and an `nn.Identity` takes its place. Other
    batch norms stay, and so do convolutions for which each image has kernels of its own, `MovedTVConv2d` among them.
    The logits are those of `network.eval()` up to rounding, at every size of image.

    The copy is in evaluation mode, and none of its parameters requires a gradient. It must not be trained: its other
    batch norms would adapt to the batches, its kernels would not. A `Predictor` takes the copy as it takes the network.
    Its state dict fits another baked network of the same `spec`: `bake(build_model(**spec)).load_state_dict(...)`.
    """
    holder = nn.Sequential(copy.deepcopy(network))
    for parent in list(holder.modules()):
        children = list(parent._modules.items())  # `named_children` names a shared module once
        for (name, op), (next_name, following) in pairwise([*children, ("", None)]):
            if not isinstance(op, TranslationVariantConv2d) or isinstance(op, BakedTVConv2d | MovedTVConv2d):
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
    """Whether the module is a batch norm that uses running statistics, not those of the batch."""
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
