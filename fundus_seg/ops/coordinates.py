"""AddCoords: a map told where it is (Liu et al., *An intriguing failing of convolutional neural networks and the
CoordConv solution*, NeurIPS 2018). A convolution behind it is their CoordConv.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AddCoords(nn.Module):
    """x: (B, C, H, W) -> (B, C + 2, H, W): the row and the column of each position, from -1 to 1, behind the channels.

    Nothing is learned, and any size is taken; a side of one position has the coordinate -1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C + 2, H, W)."""
        height, width = x.shape[-2:]
        rows = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)
        columns = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device)
        coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return torch.cat([x, coordinates.expand(len(x), -1, -1, -1)], dim=1)
