"""AxialAttention2d: position-sensitive self-attention along every column, then along every row.

J. Ho et al., *Axial Attention in Multidimensional Transformers*, 2019; in the form of H. Wang et al., *Axial-DeepLab:
Stand-Alone Axial-Attention for Panoptic Segmentation*, ECCV 2020:

    y_o = Σ_p softmax_p(q_oᵀ k_p + q_oᵀ r^q_(p - o) + k_pᵀ r^k_(p - o)) (v_p + r^v_(p - o))      (Eq. 4)

p runs along the whole line of o: first its column, then its row. q, k, v are 1x1 convolutions, and the embeddings r of
offsets are shared by the heads. The paper's sizes: 8 heads, and half as many channels in q and k as in v. Its batch
norms, by which no starting value needs care, stand behind the 1x1 convolution, each term of the logits, and each of the
two terms of the sum.

Where this departs from the paper: on a map of another size than `size`, the embeddings are interpolated linearly along
the offsets, so that the ends of a line keep theirs. Where 8 does not divide the channels, there are as many heads as
the largest number below it that does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fundus_seg.ops.compared.windows import largest_divisor
from fundus_seg.ops.layout import is_channels_last, map_in
from fundus_seg.ops.plain import conv2d
from fundus_seg.ops.translation_variant import Size


class AxialAttention2d(nn.Module):
    """Axial attention (Axial-DeepLab, ECCV 2020, Eq. 4), along columns, then along rows.

    x: (B, C, H, W) -> (B, C, H, W), of any size.

    Args:
        channels: C.
        size: (h, w) of the map that the embeddings of offsets are made for.
        heads: number of heads, at most.
    """

    def __init__(self, channels: int, size: Size, *, heads: int = 8) -> None:
        super().__init__()
        height, width = size
        self.along_columns = _RowAttention(channels, height, heads)
        self.along_rows = _RowAttention(channels, width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        out = self.along_rows(self.along_columns(x.transpose(2, 3)).transpose(2, 3))
        return map_in(out, is_channels_last(x))


class _RowAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): attention along each row, built for rows of `length` positions."""

    def __init__(self, channels: int, length: int, heads: int) -> None:
        super().__init__()
        self.heads = largest_divisor(channels, heads)
        wide = channels // self.heads
        narrow = max(1, wide // 2)
        self.widths = [narrow, narrow, wide]
        total = self.heads * sum(self.widths)
        self.project = nn.Sequential(conv2d(channels, total), nn.BatchNorm2d(total))
        self.offsets = nn.Parameter(torch.empty(sum(self.widths), 2 * length - 1))
        nn.init.normal_(self.offsets, std=1 / math.sqrt(wide))
        self.norm_logits = nn.BatchNorm2d(3 * self.heads)
        self.norm_sums = nn.BatchNorm1d(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        batch, _, height, length = x.shape
        rows = self.project(x).permute(0, 2, 1, 3).flatten(0, 1)  # (B·H, .., W)
        q, k, v = rows.unflatten(1, (self.heads, -1)).split(self.widths, dim=2)  # (B·H, heads, .., W)
        r_q, r_k, r_v = self._embeddings(length).split(self.widths)  # (.., o, p)
        terms = (
            torch.einsum("lnco,lncp->lnop", q, k),
            torch.einsum("lnco,cop->lnop", q, r_q),
            torch.einsum("lncp,cop->lnop", k, r_k),
        )
        logits = self.norm_logits(torch.cat(terms, dim=1)).unflatten(1, (3, self.heads)).sum(dim=1)
        weights = logits.softmax(dim=-1).to(v.dtype)
        sums = (torch.einsum("lnop,lncp->lnco", weights, v), torch.einsum("lnop,cop->lnco", weights, r_v))
        out = self.norm_sums(torch.cat([each.flatten(1, 2) for each in sums], dim=1))
        return out.unflatten(1, (2, -1)).sum(dim=1).unflatten(0, (batch, height)).transpose(1, 2)

    def _embeddings(self, length: int) -> Tensor:
        """(channels, o, p): the embedding of p - o for each pair of positions in a row."""
        offsets: Tensor = self.offsets
        if offsets.shape[1] != 2 * length - 1:
            offsets = offsets @ _interpolation(offsets.shape[1], 2 * length - 1, offsets)
        return offsets.unfold(1, length, 1).flip(1)  # a window of offsets for each o, from -o to length - 1 - o

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimiser should not decay: the embeddings of offsets."""
        return {"offsets"}


def _interpolation(before: int, after: int, like: Tensor) -> Tensor:
    """The matrix (before, after) that interpolates offsets linearly; the offsets of 0 and of both ends stay."""
    centre, reach = before // 2, after // 2
    places = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device) * (centre / max(1, reach)) + centre
    known = torch.arange(before, dtype=like.dtype, device=like.device)
    return (1 - (known[:, None] - places).abs()).clamp(min=0)
