"""SASA2d: stand-alone self-attention in the window around each position.

P. Ramachandran et al., *Stand-Alone Self-Attention in Vision Models*, NeurIPS 2019.

    y_ij = Σ_(a, b) softmax_ab(q_ijᵀ k_ab + q_ijᵀ r_(a - i, b - j)) v_ab        (Eq. 3)  (a, b) in the window of (i, j)
    q = W_Q x,  k = W_K x,  v = W_V x;  r: an embedding of the row offset beside one of the column offset, half of the
    channels each; heads see their own channels alone

The paper's sizes: a 7x7 window, 8 heads. Where this departs from the paper:

- Logits are divided by the square root of a head's channels, as in the Transformer (Vaswani et al. 2017). At six times
  the block's channels the softmax would otherwise start as a choice of one position.
- Positions outside the map are no part of a window; a zero-padded map would let each border attend to zeros.
- Where 8 does not divide the channels, there are as many heads as the largest number below it that does.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.ops.compared.windows import largest_divisor, window_products, window_sums
from fundus_seg.ops.plain import conv2d


class SASA2d(nn.Module):
    """Self-attention in a k x k window (SASA, NeurIPS 2019, Eq. 3).

    x: (B, C, H, W) -> (B, C, H, W), of any size.

    Args:
        channels: C.
        kernel_size: k, odd.
        heads: number of heads, at most.
    """

    def __init__(self, channels: int, kernel_size: int = 7, *, heads: int = 8) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.heads = largest_divisor(channels, heads)
        width = channels // self.heads
        self.project = conv2d(channels, 3 * channels)
        self.rows = nn.Parameter(torch.empty(self.heads, width // 2, kernel_size))
        self.columns = nn.Parameter(torch.empty(self.heads, width - width // 2, kernel_size))
        for offsets in (self.rows, self.columns):
            nn.init.normal_(offsets)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, H, W)."""
        q, k, v = self.project(x).chunk(3, dim=1)
        q = q / math.sqrt(q.shape[1] // self.heads)
        logits = window_products(q, k, self.heads, self.kernel_size) + self._positions(q)
        outside = ~_inside(self.kernel_size, x)
        return window_sums(v, logits.masked_fill(outside, -torch.inf).softmax(dim=2))

    def _positions(self, q: Tensor) -> Tensor:
        """The logits of the offsets, qᵀ r: (B, heads, k·k, H, W)."""
        of_rows, of_columns = q.unflatten(1, (self.heads, -1)).split([self.rows.shape[1], self.columns.shape[1]], dim=2)
        rows = torch.einsum("bnchw,ncu->bnuhw", of_rows, self.rows)
        columns = torch.einsum("bnchw,ncv->bnvhw", of_columns, self.columns)
        return (rows.unsqueeze(3) + columns.unsqueeze(2)).flatten(2, 3)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimiser should not decay: the embeddings of offsets."""
        return {"rows", "columns"}


def _inside(k: int, x: Tensor) -> Tensor:
    """(k·k, H, W) bool: whether a tap of the window of a position lies inside the map."""
    there = F.unfold(x.new_ones(1, 1, *x.shape[2:]), k, padding=k // 2)
    return there.view(k * k, *x.shape[2:]) > 0
