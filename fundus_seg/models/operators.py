"""What the three spatial branches of the ASPP are made of: the paper's three operators, and controls for them.

The TVConv paper replaces the ASPP's atrous convolutions by inverted residual blocks around a depthwise convolution or
TVConv; as in its released code, those blocks have no dilation. `tvconv` against `depthwise` then varies the position,
the number of parameters and their form at once, and both against `conv` the block and its dilation. The controls take
that apart:

- `depthwise-dilated`: `depthwise` with the dilation that it lost
- `depthwise-wide`: no position, as many parameters as `tvconv`
- `untied`: position without TVConv's generator, every kernel free
- `linear`: position by a linear factorisation of the kernels
- `coordconv`: position as two further input channels

Parameters are those of `build_model(op)`: 256x256 photographs, mobilenet_v2, every width at its default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fundus_seg.errors import UsageError
from fundus_seg.models.aspp import BranchFactory
from fundus_seg.models.blocks import conv2d, conv_bn_relu, inverted_residual
from fundus_seg.ops import AddCoords, LinearTVConv2d, TVConv2d, UntiedConv2d


@dataclass(frozen=True)
class BranchSettings:
    """What an operator may need to know besides the channels and the rate of a branch."""

    size: tuple[int, int]
    """(H, W) of the feature map."""
    expansion: int
    """Of inverted residual blocks."""
    generator_channels: int
    """Width of TVConv's weight generator."""


def atrous_conv(settings: BranchSettings) -> BranchFactory:
    """3x3 atrous convolution, batch norm, ReLU. 5,220,834 parameters."""
    return lambda in_channels, out_channels, rate: conv_bn_relu(in_channels, out_channels, 3, dilation=rate)


def depthwise_block(settings: BranchSettings) -> BranchFactory:
    """Inverted residual block around a 3x3 depthwise convolution. 6,401,634 parameters."""
    return _block(settings, lambda width, rate: _depthwise(width))


def tvconv_block(settings: BranchSettings) -> BranchFactory:
    """Inverted residual block around a 3x3 TVConv. 36,944,610 parameters while it trains."""
    return _block(
        settings,
        lambda width, rate: TVConv2d(
            width, settings.size, generator_channels=settings.generator_channels, resample="bilinear"
        ),
    )


def dilated_depthwise_block(settings: BranchSettings) -> BranchFactory:
    """`depthwise_block` with the ASPP's rates as dilation. 6,401,634 parameters.

    On a map of 18x18 or less, 16x16 by default, the rate 18 leaves the centre tap alone, as it does in `atrous_conv`.
    """
    return _block(settings, lambda width, rate: _depthwise(width, dilation=rate))


def wide_depthwise_block(settings: BranchSettings) -> BranchFactory:
    """`depthwise_block`, widened until it has the parameters of `tvconv_block`. 36,944,229 parameters.

    Memory grows as the width does: by default the expanded map has 19,205 channels instead of 1920.
    """

    def branch(in_channels: int, out_channels: int, rate: int) -> nn.Module:
        def block(width: int) -> nn.Module:
            return inverted_residual(in_channels, out_channels, width=width, spatial=_depthwise)

        with torch.device("meta"):  # counted without memory or random numbers
            wanted = _parameters(tvconv_block(settings)(in_channels, out_channels, rate))
            one, two = _parameters(block(1)), _parameters(block(2))
        return block(1 + round((wanted - one) / (two - one)))

    return branch


def untied_block(settings: BranchSettings) -> BranchFactory:
    """Inverted residual block around an untied 3x3 depthwise convolution. 19,620,834 parameters."""
    return _block(settings, lambda width, rate: UntiedConv2d(width, settings.size, resample="bilinear"))


def linear_block(settings: BranchSettings) -> BranchFactory:
    """Inverted residual block around a 3x3 TVConv whose kernels are factorised linearly. 6,560,226 parameters."""
    return _block(settings, lambda width, rate: LinearTVConv2d(width, settings.size, resample="bilinear"))


def coordconv_block(settings: BranchSettings) -> BranchFactory:
    """`depthwise_block` of a map with its rows and columns as two more channels. 6,413,154 parameters.

    They enter before the 1x1 expansion, where channels are mixed: every channel can meet the nonlinearity and the
    depthwise convolution shifted by its position. Beside the expanded channels the two would be filtered by themselves
    and add a mere bias per position to the output.
    """
    return lambda in_channels, out_channels, rate: nn.Sequential(
        AddCoords(),
        *inverted_residual(in_channels + 2, out_channels, width=settings.expansion * in_channels, spatial=_depthwise),
    )


Operator = Callable[[BranchSettings], BranchFactory]

OPERATORS: dict[str, Operator] = {
    "conv": atrous_conv,
    "depthwise": depthwise_block,
    "tvconv": tvconv_block,
    "depthwise-dilated": dilated_depthwise_block,
    "depthwise-wide": wide_depthwise_block,
    "untied": untied_block,
    "linear": linear_block,
    "coordconv": coordconv_block,
}


def tried(op: str, operator: Operator, settings: BranchSettings) -> BranchFactory:
    """The branches of an operator from outside, each run once on zeros in evaluation mode; no random number is drawn.

    Raises:
        UsageError: it raises, or a branch gives another shape; by the branches, once they are made.
    """
    with _blamed(op):
        make_branch = operator(settings)

    def branch(in_channels: int, out_channels: int, rate: int) -> nn.Module:
        with _blamed(op):
            module = make_branch(in_channels, out_channels, rate)
            mode = module.training
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                output = module.eval()(torch.zeros(1, in_channels, *settings.size))
            module.train(mode)
        expected = (1, out_channels, *settings.size)
        if not isinstance(output, Tensor) or output.shape != expected:
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UsageError(f"{op}: a branch makes {given} of {(1, in_channels, *settings.size)}: return {expected}")
        return module

    return branch


@contextlib.contextmanager
def _blamed(op: str) -> Iterator[None]:
    """Whatever the code of a plugin raises, as one line that names it."""
    try:
        yield
    except Exception as error:
        raise UsageError(f"{op}: raises {type(error).__name__}: {' '.join(str(error).split())}") from error


def _block(settings: BranchSettings, spatial: Callable[[int, int], nn.Module]) -> BranchFactory:
    """Inverted residual blocks of the settings' expansion around `spatial(width, rate)`."""
    return lambda in_channels, out_channels, rate: inverted_residual(
        in_channels, out_channels, width=settings.expansion * in_channels, spatial=lambda width: spatial(width, rate)
    )


def _depthwise(width: int, dilation: int = 1) -> nn.Module:
    return conv2d(width, width, 3, dilation=dilation, groups=width)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
