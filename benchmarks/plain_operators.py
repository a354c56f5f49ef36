"""The formulations of the operators that their authors use, in plain torch, to measure against; no code is copied.

Kernels per image are applied by one grouped convolution, windows are written out by `unfold`, and embeddings of offsets
are gathered by index. Each function takes the module of `fundus_seg.ops.compared`, for its parameters, and a map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.ops.compared.ddf import _normalised


def grouped(x: Tensor, weight: Tensor) -> Tensor:
    """One convolution, in which images are groups: x (B, C, H, W), weight (B, C_out, C_in / groups, k, k)."""
    batch, channels, height, width = x.shape
    groups = batch * (channels // weight.shape[2])
    out = F.conv2d(x.reshape(1, -1, height, width), weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=groups)
    return out.view(batch, -1, height, width)


def unfolded(x: Tensor, k: int) -> Tensor:
    """(B, C, H, W) -> (B, C, k·k, H, W)."""
    return F.unfold(x, k, padding=k // 2).view(*x.shape[:2], k * k, *x.shape[2:])


def condconv(module, x):
    alpha = module.routing(x.mean(dim=(2, 3))).sigmoid()
    weight = torch.einsum("bn,nct->bct", alpha, module.experts)
    return grouped(x, weight.view(*x.shape[:2], 1, 3, 3))


def weightnet(module, x):
    alpha = module.activation(x.mean(dim=(2, 3)))
    channels, inputs, taps = module.kernels.shape
    matrix = module.kernels.transpose(1, 2).reshape(channels * taps, inputs, 1, 1)
    weight = F.conv2d(alpha[:, :, None, None], matrix, groups=channels)
    return grouped(x, weight.view(*x.shape[:2], 1, 3, 3))


def dyconv_depthwise(module, x):
    pi = module.attention(x)
    weight = torch.mm(pi, module.weight.flatten(1)).view(*x.shape[:2], 1, 3, 3)
    return grouped(x, weight) + torch.mm(pi, module.bias)[:, :, None, None]


def dyconv_pointwise(module, x):
    pi = module.attention(x)
    weight = torch.mm(pi, module.weight.flatten(1)).view(len(x), *module.weight.shape[1:], 1, 1)
    return grouped(x, weight) + torch.mm(pi, module.bias)[:, :, None, None]


def involution(module, x):
    kernel = module.generator(x).unflatten(1, (module.groups, 1, -1))
    windows = unfolded(x, 7).unflatten(1, (module.groups, -1))
    return (kernel * windows).sum(dim=3).flatten(1, 2)


def ddf(module, x):
    spatial = _normalised(module.spatial(x), 1) * module.spatial_scale + module.spatial_shift
    channel = _normalised(module.channel(x.mean(dim=(2, 3))).unflatten(1, (x.shape[1], -1)), 2)
    channel = channel * module.channel_scale[:, None] + module.channel_shift[:, None]
    return (unfolded(x, 3) * spatial[:, None] * channel[..., None, None]).sum(dim=2)


def sasa(module, x):
    heads, k = module.heads, 7
    q, keys, values = module.project(x).chunk(3, dim=1)
    q = q.unflatten(1, (heads, -1)) / math.sqrt(x.shape[1] // heads)  # (B, heads, C / heads, H, W)
    windows = [unfolded(each, k).unflatten(1, (heads, -1)) for each in (keys, values)]  # (B, heads, .., k², H, W)
    shape = (heads, -1, k, k)
    r = torch.cat([module.rows[..., None].expand(shape), module.columns[:, :, None].expand(shape)], dim=1).flatten(2)
    logits = (q.unsqueeze(3) * (windows[0] + r[..., None, None])).sum(dim=2)  # (B, heads, k², H, W)
    outside = unfolded(torch.ones_like(x[:1, :1]), k)[0] == 0
    weights = logits.masked_fill(outside, -torch.inf).softmax(dim=2)
    return (weights.unsqueeze(2) * windows[1]).sum(dim=3).flatten(1, 2)


def axial(module, x):
    return _along_rows(
        module.along_rows, _along_rows(module.along_columns, x.transpose(2, 3)).transpose(2, 3)
    ).contiguous()


def _along_rows(module, x):
    batch, channels, height, length = x.shape
    lines = x.permute(0, 2, 1, 3).reshape(batch * height, channels, length)
    conv, norm = module.project
    projected = norm(F.conv1d(lines, conv.weight.flatten(2))[..., None])
    q, k, v = projected.view(batch * height, module.heads, -1, length).split(module.widths, dim=2)
    places = torch.arange(length)
    r_q, r_k, r_v = module.offsets[:, places - places[:, None] + length - 1].split(module.widths)
    terms = (
        torch.einsum("lnco,lncp->lnop", q, k),
        torch.einsum("lnco,cop->lnop", q, r_q),
        torch.einsum("lncp,cop->lnop", k, r_k),
    )
    logits = module.norm_logits(torch.cat(terms, dim=1)).view(batch * height, 3, module.heads, length, length)
    weights = logits.sum(dim=1).softmax(dim=3)
    sums = (torch.einsum("lnop,lncp->lnco", weights, v), torch.einsum("lnop,cop->lnco", weights, r_v))
    out = module.norm_sums(torch.cat([each.reshape(batch * height, channels, length) for each in sums], dim=1))
    return out.view(batch, height, 2, channels, length).sum(dim=2).permute(0, 2, 1, 3)


PLAIN = {
    "condconv": condconv,
    "weightnet": weightnet,
    "dyconv-dw": dyconv_depthwise,
    "dyconv-pw": dyconv_pointwise,
    "involution": involution,
    "ddf": ddf,
    "sasa": sasa,
    "axial": axial,
}
