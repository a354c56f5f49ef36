"""The operator as its equation reads, for the tests of every backend."""

from __future__ import annotations

from torch import Tensor


def four_loops(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Eq. 2 by four loops: output rows and columns, kernel rows and columns. Differentiable."""
    k = int(weight.shape[1] ** 0.5)
    out = x.new_zeros(x.shape[0], *weight[:, 0].shape)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for u in range(k):
                for v in range(k):
                    row = i * stride + dilation * (u - k // 2)
                    col = j * stride + dilation * (v - k // 2)
                    if 0 <= row < x.shape[2] and 0 <= col < x.shape[3]:
                        out[:, :, i, j] += weight[:, k * u + v, i, j] * x[:, :, row, col]
    return out
