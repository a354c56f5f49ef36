"""The operators of `fundus_seg.ops.compared` as their equations read, image by image and position by position.

Each function takes the module, for its parameters alone, and one image x (C, H, W) in float64; modules are in
evaluation mode, so that a batch norm is a scale and a shift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def by_image(one: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda module, x: torch.stack([one(module, image) for image in x])


def positions(x: Tensor) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(x.shape[1]) for j in range(x.shape[2]))


def window(x: Tensor, i: int, j: int, k: int) -> Iterator[tuple[int, Tensor]]:
    """Each tap of the window of a position that lies inside the map, and the channels there."""
    for tap in range(k * k):
        row, column = i + tap // k - k // 2, j + tap % k - k // 2
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            yield tap, x[:, row, column]


def filtered(x: Tensor, kernel: Callable[[int, int], Tensor], k: int) -> Tensor:
    """out[c, i, j] = Σ_t kernel(i, j)[c, t] x[c, there]."""
    out = torch.zeros_like(x)
    for i, j in positions(x):
        of_position = kernel(i, j)
        for tap, there in window(x, i, j, k):
            out[:, i, j] += of_position[:, tap] * there
    return out


def affine(layer: Any, x: Tensor) -> Tensor:
    """A linear layer or 1x1 convolution of a vector (C,)."""
    out = layer.weight.flatten(1) @ x
    return out if layer.bias is None else out + layer.bias


def normed(norm: Any, x: Tensor, dim: int = 0) -> Tensor:
    shape = [-1 if each == dim else 1 for each in range(x.ndim)]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return x * scale.view(shape) + (norm.bias - norm.running_mean * scale).view(shape)


def condconv(module: Any, x: Tensor) -> Tensor:
    alpha = affine(module.routing, x.mean(dim=(1, 2))).sigmoid()
    kernel = sum(weight * expert for weight, expert in zip(alpha, module.experts, strict=True))
    return filtered(x, lambda i, j: kernel, 3)


def weightnet(module: Any, x: Tensor) -> Tensor:
    first, second, _ = module.activation
    alpha = affine(second, affine(first, x.mean(dim=(1, 2)))).sigmoid()
    channels, inputs, taps = module.kernels.shape
    grouped = torch.zeros(channels * taps, channels * inputs, dtype=x.dtype)  # W_fc2, most of which is zero
    for c in range(channels):
        grouped[c * taps : (c + 1) * taps, c * inputs : (c + 1) * inputs] = module.kernels[c].T
    kernel = (grouped @ alpha).view(channels, taps)
    return filtered(x, lambda i, j: kernel, 3)


def _attention(module: Any, x: Tensor) -> Tensor:
    first, _, second = module.attention.scores
    z = affine(second, affine(first, x.mean(dim=(1, 2))).clamp(min=0)) / module.attention.temperature
    return z.exp() / z.exp().sum()


def dyconv_depthwise(module: Any, x: Tensor) -> Tensor:
    pi = _attention(module, x)
    kernel = sum(weight * each for weight, each in zip(pi, module.weight, strict=True))
    return filtered(x, lambda i, j: kernel, 3) + (pi @ module.bias)[:, None, None]


def dyconv_pointwise(module: Any, x: Tensor) -> Tensor:
    pi, out = _attention(module, x), x.new_zeros(module.weight.shape[1], *x.shape[1:])
    for i, j in positions(x):
        for weight, matrix, bias in zip(pi, module.weight, module.bias, strict=True):
            out[:, i, j] += weight * (matrix @ x[:, i, j] + bias)
    return out


def involution(module: Any, x: Tensor) -> Tensor:
    reduce, norm, _, span = module.generator

    def kernel(i: int, j: int) -> Tensor:
        of_groups = affine(span, normed(norm, affine(reduce, x[:, i, j])).clamp(min=0)).view(module.groups, -1)
        return of_groups.repeat_interleave(len(x) // module.groups, dim=0)

    return filtered(x, kernel, 7)


def ddf(module: Any, x: Tensor) -> Tensor:
    def standard(filters: Tensor) -> Tensor:
        mean = filters.mean(dim=-1, keepdim=True)
        variance = (filters - mean).square().mean(dim=-1, keepdim=True)
        return (filters - mean) / (variance + 1e-5).sqrt()

    first, _, second = module.channel
    of_channels = standard(affine(second, affine(first, x.mean(dim=(1, 2))).clamp(min=0)).view(len(x), -1))
    of_channels = of_channels * module.channel_scale[:, None] + module.channel_shift[:, None]

    def kernel(i: int, j: int) -> Tensor:
        of_position = standard(affine(module.spatial, x[:, i, j])) * module.spatial_scale + module.spatial_shift
        return of_channels * of_position

    return filtered(x, kernel, 3)


def sasa(module: Any, x: Tensor) -> Tensor:
    weight_q, weight_k, weight_v = module.project.weight.flatten(1).chunk(3)
    heads, width = module.heads, len(x) // module.heads
    out = torch.zeros_like(x)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for i, j in positions(x):
            q = weight_q[own] @ x[:, i, j] / width**0.5
            logits, values = [], []
            for tap, there in window(x, i, j, 7):
                r = torch.cat([module.rows[head, :, tap // 7], module.columns[head, :, tap % 7]])
                logits.append(q @ (weight_k[own] @ there) + q @ r)
                values.append(weight_v[own] @ there)
            out[own, i, j] = torch.stack(logits).softmax(dim=0) @ torch.stack(values)
    return out


def axial(module: Any, x: Tensor) -> Tensor:
    columns = _along_rows(module.along_columns, x.transpose(1, 2)).transpose(1, 2)
    return _along_rows(module.along_rows, columns)


def _along_rows(module: Any, x: Tensor) -> Tensor:
    conv, norm = module.project
    heads, (narrow, _, wide), length = module.heads, module.widths, x.shape[2]
    out = torch.zeros_like(x)
    r_q, r_k, r_v = module.offsets.split(module.widths)
    of_logits = module.norm_logits.weight, module.norm_logits
    assert len(of_logits[0]) == 3 * heads
    for i in range(x.shape[1]):
        projected = torch.stack([normed(norm, affine(conv, x[:, i, j])) for j in range(length)], dim=1)
        for head in range(heads):
            own = projected.view(heads, 2 * narrow + wide, length)[head]
            q, k, v = own.split(module.widths)
            for o in range(length):
                logits = []
                for p in range(length):
                    at = p - o + length - 1
                    terms = torch.zeros(3 * heads, dtype=x.dtype)
                    terms[head], terms[heads + head] = q[:, o] @ k[:, p], q[:, o] @ r_q[:, at]
                    terms[2 * heads + head] = k[:, p] @ r_k[:, at]
                    logits.append(normed(module.norm_logits, terms).view(3, heads)[:, head].sum())
                weights = torch.stack(logits).softmax(dim=0)
                sums = torch.zeros(2 * len(x), dtype=x.dtype)
                here = slice(head * wide, (head + 1) * wide)
                sums[here] = sum(weights[p] * v[:, p] for p in range(length))
                sums[len(x) :][here] = sum(weights[p] * r_v[:, p - o + length - 1] for p in range(length))
                out[here, i, o] = normed(module.norm_sums, sums).view(2, -1)[:, here].sum(dim=0)
    return out


def mlp_mixer(module: Any, x: Tensor) -> Tensor:
    def standard(norm: Any, vector: Tensor) -> Tensor:
        centred = vector - vector.mean()
        return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias

    def perceptron(layers: Any, vector: Tensor) -> Tensor:
        hidden = affine(layers[0], vector)
        return affine(layers[2], hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)

    tokens = torch.stack([affine(module.embed, x[:, i, j]) for i, j in positions(x)])  # (S, C)
    for layer in module.layers:
        normal = torch.stack([standard(layer.norm_positions, token) for token in tokens])
        tokens = tokens + torch.stack([perceptron(layer.mix_positions, channel) for channel in normal.T], dim=1)
        mixed = [perceptron(layer.mix_channels, standard(layer.norm_channels, token)) for token in tokens]
        tokens = tokens + torch.stack(mixed)
    out = torch.stack([standard(module.norm, token) for token in tokens])
    return out.T.view(-1, *x.shape[1:])
