"""MovedTVConv2d: TVConv whose affinity maps each image moves, by one affine map that is predicted from it.

The TVConv paper (CVPR 2022) names as a limit that TVConv degrades to a depthwise convolution where the layout changes
strongly, and suggests a spatial transformer on its affinity maps A:

    Δ_b = V mean(x_b) + v                                   (2, 3) for each image x_b; V and v start at 0
    A_b[:, i, j] = A at (x_j, y_i) + Δ_b (x_j, y_i, 1)'     x, y from -1 to 1 between the outer edges of the map
    W_b = B(A_b)                                            (TVConv, Eq. 4)

M. Jaderberg et al., *Spatial Transformer Networks*, NeurIPS 2015, section 3: A is read bilinearly (their Eq. 5). Where
this departs from them:

- Δ is added to the identity, and places are counted in pixels, so that at the start A_b is A to the bit.
- What is read outside of A is its nearest value, so that a constant A stays constant.
- The localisation network is a single layer on the mean of the operator's own input.
- The reading is a product of matrices, whose gradient is deterministic on CUDA; that of `F.grid_sample` is not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fundus_seg.ops.compared.per_image import image_mean
from fundus_seg.ops.compared.windows import window_sums
from fundus_seg.ops.translation_variant import Size, resampled
from fundus_seg.ops.tvconv import TVConv2d


class MovedTVConv2d(TVConv2d):
    """TVConv with a spatial transformer on its affinity maps, W_b = B(A_b) for each image b; no bias.

    x: (B, C, H, W) -> (B, C, h, w). Arguments and errors are those of `TVConv2d`; the parameters too, but for
    `movement`, which draws no random number. At the start the operator computes what TVConv computes.

    Every image has kernels of its own: the generator runs for each, in training and at inference, nothing is cached,
    and `fundus_seg.models.bake` leaves the module as it is. `kernel()` gives the kernels of A where nothing moves it.
    """

    def __init__(self, channels: int, size: Size, kernel_size: int = 3, **options: Any) -> None:
        super().__init__(channels, size, kernel_size, **options)
        with torch.random.fork_rng(devices=[]):
            self.movement = nn.Linear(channels, 6)
        nn.init.zeros_(self.movement.weight)
        nn.init.zeros_(self.movement.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, C, H, W) to (B, C, h, w)."""
        height, width = ((n - 1) // self.stride + 1 for n in x.shape[-2:])
        self._check_size((height, width))
        with torch.autocast(x.device.type, enabled=False):
            change = self.movement(image_mean(x).to(self.movement.weight.dtype)).unflatten(1, (2, 3))
            weight = self._generated(moved(self.affinity_maps, change))  # (B, C, k², h, w)
            if (height, width) != self.size:
                weight = resampled(weight.flatten(0, 1), (height, width)).unflatten(0, (-1, self.channels))
        return window_sums(x, weight, stride=self.stride)


def moved(maps: Tensor, change: Tensor) -> Tensor:
    """A_b: maps A (c, h, w) read at the places that each image's affine map gives: (B, c, h, w), dtype of `maps`.

    The gradient at a place in the middle of a pixel is that to its right, or below.

    Args:
        maps: A, (c, h, w).
        change: Δ, (B, 2, 3); its first row moves along x, its second along y.
    """
    height, width = maps.shape[1:]
    exact = torch.promote_types(maps.dtype, torch.float32)
    change, wide = change.to(exact), maps.to(exact)
    rows, columns = (torch.arange(side, dtype=exact, device=maps.device) for side in (height, width))
    y, x = torch.meshgrid((2 * rows + 1) / height - 1, (2 * columns + 1) / width - 1, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # (3, h·w)
    along_x, along_y = (change @ places).unbind(1)  # (B, h·w)
    row = _weights(rows.repeat_interleave(width) + along_y * height / 2, height)  # (B, h·w, h)
    column = _weights(columns.repeat(height) + along_x * width / 2, width)  # (B, h·w, w)
    lines = (row @ wide.transpose(0, 1).flatten(1)).unflatten(2, (-1, width))  # (B, h·w, c, w)
    read = (lines * column[:, :, None]).sum(3)  # (B, h·w, c)
    return read.transpose(1, 2).unflatten(2, (height, width)).to(maps.dtype)


def _weights(places: Tensor, side: int) -> Tensor:
    """Linear interpolation of a line of values at places (B, n), in pixels: (B, n, side), two neighbours or one."""
    inside = places.clamp(0, side - 1)
    lower = inside.detach().floor()
    share, index = (inside - lower)[..., None], torch.arange(side, dtype=places.dtype, device=places.device)
    at_lower, at_upper = (index == each[..., None] for each in (lower, (lower + 1).clamp(max=side - 1)))
    return at_lower * (1 - share) + at_upper * share
