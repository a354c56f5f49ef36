"""Translation-variant convolution on plain tensors.

Chen et al., *TVConv: Efficient Translation Variant Convolution for Layout-aware Visual Processing*, CVPR 2022, Eq. 2:
every output position has a depthwise kernel of its own. The released code applies the kernels through `unfold`, which
writes k² copies of the input; each backend here reads every operand once, or nearly so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fundus_seg.ops.autograd import convolve


def translation_variant_conv2d(x: Tensor, weight: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """Depthwise convolution with a kernel per output position (TVConv, CVPR 2022, Eq. 2).

        O[b, c, i, j] = Σ_t W[c, t, i, j] · x[b, c, s·i + d·(t // k - k // 2), s·j + d·(t % k - k // 2)]

    with stride s, dilation d, taps t = 0 .. k² - 1 in row-major order, and zeros outside x ("same" padding d·(k // 2)).
    With a weight that is constant over (i, j) it equals `F.conv2d(..., groups=C)`.

    Args:
        x: (B, C, H, W).
        weight: (C, k·k, H_out, W_out), k odd, with H_out = (H - 1) // stride + 1 and W_out likewise.
        stride: step between output positions, in input pixels.
        dilation: distance between taps, in input pixels.

    Returns:
        (B, C, H_out, W_out) in the dtype of x, contiguous, or channels last where x is. bfloat16 and float16 are summed
        in float32 and rounded once. Under autocast x and weight are cast as `F.conv2d` casts its operands, and the
        result has the autocast dtype. With a channels-last x, a weight stored as (H_out, W_out, k·k, C) is not copied.

        The function can be differentiated any number of times, compiled, and transformed by `torch.vmap` and
        `torch.func.grad`; forward-mode derivatives (`torch.func.jvp`) raise NotImplementedError.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.

    Examples:
        One channel, a 1x1 kernel per position: the output is the product of the two maps.

        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> weight = torch.tensor([[[[1.0, 0.0], [0.0, 10.0]]]])
        >>> translation_variant_conv2d(x, weight)
        tensor([[[[ 1.,  0.],
                  [ 0., 40.]]]])
    """
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            "x must be (B, C, H, W) and weight (C, k*k, H_out, W_out), "
            f"got shapes {tuple(x.shape)} and {tuple(weight.shape)}: add the missing dimensions."
        )
    k = math.isqrt(weight.shape[1])
    if k * k != weight.shape[1] or k % 2 == 0:
        raise ValueError(f"weight has {weight.shape[1]} taps: pass k*k of them with an odd k (1, 9, 25, ...).")
    if x.shape[1] != weight.shape[0]:
        raise ValueError(
            f"x has {x.shape[1]} channels and weight {weight.shape[0]}: pass one kernel per channel and position."
        )
    if stride < 1 or dilation < 1:
        raise ValueError(f"stride and dilation must be at least 1, got {stride} and {dilation}.")
    height, width = ((n - 1) // stride + 1 for n in x.shape[2:])
    if weight.shape[2:] != (height, width):
        raise ValueError(
            f"weight holds kernels for {weight.shape[2]}x{weight.shape[3]} positions, but a {x.shape[2]}x{x.shape[3]} "
            f"input at stride {stride} has {height}x{width}: pass a weight of that size."
        )
    if x.device != weight.device:
        raise ValueError(f"x is on {x.device} and weight on {weight.device}: move one of them.")
    x, weight = x.to(convolved_dtype(x)), weight.to(convolved_dtype(weight))
    if x.dtype != weight.dtype:
        raise ValueError(f"x is {x.dtype} and weight {weight.dtype}: cast one of them, or run under autocast.")
    return convolve(x, weight, k, stride, dilation)


def convolved_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that a convolution casts the tensor to: autocast's where that is on and the tensor is not float64."""
    device = tensor.device.type
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if not casts or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor.dtype
    return torch.get_autocast_dtype(device)
