"""Sums and products over the k x k window of every position, with a kernel per image, position and group of channels.

Both are the operator that TVConv uses, seen from another side: a kernel of TVConv is shared by all images and has a
channel of its own, a kernel here is shared by the channels of a group and has an image of its own. So the channels of a
group take the place of the images, and images and groups together the place of the channels. One copy of the map is
written in that order, and none of its windows.
"""

from __future__ import annotations

from torch import Tensor

from fundus_seg.ops.autograd import correlate
from fundus_seg.ops.functional import convolved_dtype, translation_variant_conv2d
from fundus_seg.ops.layout import map_in


def window_sums(x: Tensor, weight: Tensor, *, stride: int = 1) -> Tensor:
    """O[b, c, i, j] = Σ_t W[b, g, t, i, j] · x[b, c, s·i + t // k - k // 2, s·j + t % k - k // 2].

    Args:
        x: (B, C, H, W); outside of it are zeros.
        weight: (B, G, k·k, h, w), k odd; G divides C, and channel c is of the group g = c // (C / G).
        stride: s, with h = (H - 1) // s + 1 and w likewise.

    Returns:
        (B, C, h, w), in the memory layout of x.
    """
    batch, groups = weight.shape[:2]
    out = translation_variant_conv2d(_groups_in_front(x, groups), weight.flatten(0, 1), stride=stride)
    maps = out.unflatten(1, (batch, groups))  # (C / G, B, G, h, w)
    if x.stride(1) == 1 and not x.is_contiguous():  # channels last, or a part of the channels of such a map
        return map_in(maps.permute(1, 3, 4, 2, 0).flatten(3).permute(0, 3, 1, 2), True)
    return maps.permute(1, 2, 0, 3, 4).flatten(1, 2)


def window_products(queries: Tensor, keys: Tensor, groups: int, kernel_size: int) -> Tensor:
    """P[b, g, t, i, j] = Σ_c queries[b, c, i, j] · keys[b, c, i + t // k - k // 2, j + t % k - k // 2], c in group g.

    Args:
        queries: (B, C, H, W).
        keys: (B, C, H, W); outside of them are zeros.
        groups: G, which divides C.
        kernel_size: k, odd.

    Returns:
        (B, G, k·k, H, W).
    """
    pair = [_groups_in_front(each.to(convolved_dtype(each)), groups) for each in (queries, keys)]
    return correlate(pair[0], pair[1], kernel_size, 1, 1).unflatten(0, (-1, groups))


def largest_divisor(channels: int, at_most: int) -> int:
    """The largest divisor of a number of channels that is not above a limit: the groups, or their size, that fit it."""
    return next(each for each in range(min(channels, at_most), 0, -1) if channels % each == 0)


def _groups_in_front(x: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) -> (C / G, B·G, H, W), contiguous."""
    return x.unflatten(1, (groups, -1)).permute(2, 0, 1, 3, 4).flatten(1, 2).contiguous()
