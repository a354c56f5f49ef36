"""The three spatial branches of the ASPP: the operators that the TVConv paper compares, and controls for them.

The paper replaces the ASPP's atrous convolutions by inverted residual blocks around a depthwise convolution or TVConv;
as in its released code, those blocks have no dilation. So `tvconv` differs from `depthwise` in three ways at once: it
knows positions, it has more parameters, and it generates them. And both differ from `conv` in the block and in its
dilation. The controls vary one thing at a time:

- `depthwise-dilated`: `depthwise` with the dilation that it lost
- `depthwise-wide`: no position, as many parameters as `tvconv`
- `untied`: position without TVConv's generator, every kernel free
- `linear`: position by a linear factorisation of the kernels
- `coordconv`: position as two further input channels

`fundus_seg.builtins.OPERATORS` has their names. Each operator is a function (in_channels, out_channels, rate, settings)
-> module, called once for each branch; an operator of your own is the same. The numbers of parameters below are those
of the whole network, `build_model(op)`: 256x256 photographs, mobilenet_v2, every width at its default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fundus_seg.errors import UsageError, one_line
from fundus_seg.models.blocks import AddCoords, conv_bn_relu, count_parameters, depthwise, inverted_residual
from fundus_seg.ops import DynamicBias2d, LinearTVConv2d, MovedTVConv2d, TVConv2d, UntiedConv2d
from fundus_seg.ops.tvconv import AffinityStart
from fundus_seg.plugins import blamed

OPERATOR_FORM = "factory(in_channels, out_channels, rate, settings) -> torch.nn.Module"


@dataclass(frozen=True)
class BranchSettings:
    """What an operator may need to know besides the channels and the rate of a branch."""

    size: tuple[int, int]
    """(H, W) of the feature map."""
    expansion: int
    """Channels within an inverted residual block, as a multiple of its input channels."""
    generator_channels: int
    """Width of TVConv's weight generator."""
    ablation: tuple[str, ...] = ()
    """What is taken from TVConv or added to it: parts of `fundus_seg.builtins.ABLATIONS`."""
    generator_layers: int = 3
    """Blocks of TVConv's weight generator after its input block."""
    affinity_channels: int = 4
    """Affinity maps of each TVConv."""


Operator = Callable[[int, int, int, BranchSettings], nn.Module]
"""in_channels, out_channels, rate, settings -> a module (B, in_channels, H, W) -> (B, out_channels, H, W)."""


def atrous_conv(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """3x3 atrous convolution, batch norm, ReLU. 5,220,834 parameters."""
    return conv_bn_relu(in_channels, out_channels, 3, dilation=rate)


def depthwise_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 3x3 depthwise convolution. 6,401,634 parameters."""
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, depthwise)


def tvconv_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 3x3 TVConv. 36,944,610 parameters in training.

    Where `settings.ablation` names branches, the others are those of `depthwise_block`.
    """
    branches = [part for part in settings.ablation if part.startswith("branch-")]
    if branches and f"branch-{rate}" not in branches:
        return depthwise_block(in_channels, out_channels, rate, settings)
    own = partial(tvconv, settings, size=settings.size)
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, own)


def tvconv(settings: BranchSettings, channels: int, size: tuple[int, int], stride: int = 1) -> nn.Module:
    """A 3x3 TVConv with all that the settings take from it and add to it, wherever it stands.

    Args:
        settings: those of its branch; their `size` is not read.
        channels: of the map and of the output.
        size: (h, w) of the output.
        stride: step between output positions, in input pixels.
    """
    ablation = settings.ablation
    start: AffinityStart = (
        "random" if "random-affinity" in ablation else "data" if "data-affinity" in ablation else "ones"
    )
    kind = MovedTVConv2d if "spatial-transformer" in ablation else TVConv2d
    layer = kind(
        channels,
        size,
        stride=stride,
        affinity_channels=settings.affinity_channels,
        generator_channels=settings.generator_channels,
        generator_layers=settings.generator_layers,
        affinity_start=start,
        norm_affines="no-affines" not in ablation,
        padding="replicate" if "replicate" in ablation else "zeros",
        resample="bilinear",
    )
    return DynamicBias2d(layer, channels, stride=stride) if "dynamic-bias" in ablation else layer


def start_affinity_maps(network: nn.Module, mean: Tensor, sd: Tensor) -> None:
    """Let the affinity maps of each TVConv with `affinity_start="data"` start from photographs (TVConv's ablation).

    The maps are, in turn, mean and SD of red, of green, and of blue, averaged over what each position covers; with more
    than six affinity maps they come again.

    Args:
        network: its modules are searched.
        mean: (3, H, W), the mean of the training photographs at each place, in [0, 1].
        sd: (3, H, W), their standard deviation.
    """
    maps = torch.stack([mean, sd], dim=1).flatten(0, 1)
    for module in network.modules():
        if isinstance(module, TVConv2d) and module.affinity_start == "data":
            module.start_from(maps)


def dilated_depthwise_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """`depthwise_block` with the ASPP's rates as dilation. 6,401,634 parameters.

    On a map of 18x18 or less, such as the default 16x16, a rate of 18 leaves only the centre tap, as in `atrous_conv`.
    """
    dilated = partial(depthwise, dilation=rate)
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, dilated)


def wide_depthwise_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """`depthwise_block`, widened until it has the parameters of `tvconv_block`. 36,944,229 parameters.

    Memory grows with the width: by default the expanded map has 19,205 channels instead of 1920.
    """
    block_of_width = partial(inverted_residual, in_channels, out_channels, spatial=depthwise)
    with torch.device("meta"):  # counts without memory or random numbers
        wanted = count_parameters(tvconv_block(in_channels, out_channels, rate, settings))
        one, two = count_parameters(block_of_width(1)), count_parameters(block_of_width(2))
    return block_of_width(1 + round((wanted - one) / (two - one)))


def untied_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around an untied 3x3 depthwise convolution. 19,620,834 parameters."""
    untied = partial(UntiedConv2d, size=settings.size, resample="bilinear")
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, untied)


def linear_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """Inverted residual block around a 3x3 TVConv whose kernels are factorised linearly. 6,560,226 parameters."""
    linear = partial(LinearTVConv2d, size=settings.size, resample="bilinear")
    return inverted_residual(in_channels, out_channels, settings.expansion * in_channels, linear)


def coordconv_block(in_channels: int, out_channels: int, rate: int, settings: BranchSettings) -> nn.Module:
    """`depthwise_block` of a map with its rows and columns as two more channels. 6,413,154 parameters.

    They enter before the 1x1 expansion, which mixes channels, so that the position can shift every channel before its
    nonlinearity and depthwise convolution. Appended to the expanded channels, the two would be filtered by themselves
    and only add a bias per position to the output.
    """
    width = settings.expansion * in_channels
    return nn.Sequential(AddCoords(), *inverted_residual(in_channels + 2, out_channels, width, depthwise))


def tried(
    op: str, operator: Operator, in_channels: int, out_channels: int, rate: int, settings: BranchSettings
) -> nn.Module:
    """A branch of an operator from outside the package, after a pass over zeros; the trial draws no random number.

    Args:
        op: name of the operator, for error messages.
        operator: the operator.
        in_channels: its first argument.
        out_channels: its second.
        rate: its third.
        settings: its fourth.

    Raises:
        UsageError: the operator is of another form or raises, or its branch does or gives another shape.
    """
    arguments = in_channels, out_channels, rate, settings
    _check_form(op, operator, arguments)
    with blamed(op):
        module = operator(*arguments)
    if not isinstance(module, nn.Module):
        raise UsageError(f"{op}: returns {type(module).__name__}: write an operator as {OPERATOR_FORM}")
    mode = module.training
    with blamed(op), torch.random.fork_rng(devices=[]), torch.no_grad():
        output = module.eval()(torch.zeros(1, in_channels, *settings.size))
    module.train(mode)
    expected = (1, out_channels, *settings.size)
    if not isinstance(output, Tensor) or output.shape != expected:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(f"{op}: a branch makes {given} of {(1, in_channels, *settings.size)}: return {expected}")
    return module


def _check_form(op: str, operator: Operator, arguments: tuple[object, ...]) -> None:
    """Refuse an operator that does not take the arguments, such as factory(settings), without calling it."""
    try:
        signature = inspect.signature(operator)
    except (TypeError, ValueError):  # some callables written in C have none
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise UsageError(f"{op}: takes {one_line(signature)}: write an operator as {OPERATOR_FORM}") from error
