"""Where in the network the operator stands, beside the ASPP: in the decoder, and in depthwise slots of the encoder."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial

import torch
from torch import nn

from fundus_seg.builtins import PLACES
from fundus_seg.errors import UsageError
from fundus_seg.models.blocks import depthwise
from fundus_seg.models.operators import BranchSettings, tvconv
from fundus_seg.models.slots import DEPTHWISE, SLOTS, Size, Slot
from fundus_seg.network_spec import NetworkSpec
from fundus_seg.protocol import DEEP_STRIDE

_IN_ENCODER = "encoder-"


def branch_settings(spec: NetworkSpec) -> BranchSettings:
    """What an operator in the network of this spec may need to know."""
    side = spec.image_size // DEEP_STRIDE
    return BranchSettings(
        (side, side),
        spec.expansion,
        spec.generator_channels,
        spec.ablated,
        generator_layers=spec.generator_layers,
        affinity_channels=spec.affinity_channels,
    )


def placed(spec: NetworkSpec) -> Slot:
    """The operator of a network, to stand for a 3x3 depthwise convolution.

    Raises:
        UsageError: the operator cannot stand there.
    """
    if spec.op == "tvconv":
        return partial(tvconv, branch_settings(spec))
    if spec.op == DEPTHWISE:
        return lambda channels, size, stride: depthwise(channels)
    if spec.op not in SLOTS:
        raise UsageError(
            f"placement {spec.placement} with operator {spec.op}: it cannot stand for a 3x3 depthwise convolution; "
            f"place it in the aspp alone, or take one of {', '.join([DEPTHWISE, *SLOTS])}"
        )
    return SLOTS[spec.op]


def in_encoder(spec: NetworkSpec) -> Callable[[nn.Module], None] | None:
    """What changes the body of the encoder as the placement says; None where the encoder stays as it is.

    Raises:
        UsageError: the operator cannot stand there; when it is called, the encoder has no such slot.
    """
    strides = {int(place.removeprefix(_IN_ENCODER)) for place in spec.places if place.startswith(_IN_ENCODER)}
    if not strides:
        return None
    return partial(_fill, make=placed(spec), strides=strides, spec=spec)


def _fill(body: nn.Module, make: Slot, strides: Set[int], spec: NetworkSpec) -> None:
    """Replace the 3x3 depthwise convolutions of a body that give maps of these strides.

    A convolution that is dilated, to keep the stride, loses its dilation, as the branches of the ASPP do.
    """
    sizes = _slots(body, spec.image_size)
    there = {spec.image_size // height for height, _ in sizes.values()}
    if lacking := sorted(strides - there):
        others = [place for place in PLACES if place in {f"{_IN_ENCODER}{stride}" for stride in there}]
        raise UsageError(
            f"placement {spec.placement}: encoder {spec.encoder} has no 3x3 depthwise convolution at stride "
            f"{', '.join(map(str, lacking))}; take {' or '.join(['aspp', 'decoder', *others])}, or another encoder, "
            "such as mobilenet_v2"
        )
    if spec.op == DEPTHWISE:
        return
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child in sizes and spec.image_size // sizes[child][0] in strides:
                setattr(parent, name, make(child.in_channels, sizes[child], child.stride[0]))


def _slots(body: nn.Module, image_size: int) -> dict[nn.Module, Size]:
    """The size of the map that each 3x3 depthwise convolution gives, seen in one pass over zeros."""
    sizes: dict[nn.Module, Size] = {}

    def note(module: nn.Module, _: object, out: torch.Tensor) -> None:
        sizes[module] = out.shape[2], out.shape[3]

    slots = [each for each in body.modules() if isinstance(each, nn.Conv2d) and _is_slot(each)]
    hooks = [each.register_forward_hook(note) for each in slots]
    mode = body.training
    body.eval()  # the pass must not change running statistics
    with torch.no_grad():
        body(torch.zeros(1, 3, image_size, image_size))
    body.train(mode)
    for hook in hooks:
        hook.remove()
    return sizes


def _is_slot(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (3, 3) and 1 < conv.groups == conv.in_channels == conv.out_channels
