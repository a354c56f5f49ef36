"""MobileNetV2 and ShuffleNetV2 with any operator in the place of their depthwise convolutions.

M. Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018; N. Ma et al., *ShuffleNet V2:
Practical Guidelines for Efficient CNN Architecture Design*, ECCV 2018. These are the light networks of the TVConv paper
(CVPR 2022), which replaces their depthwise convolutions in all stages, or, in its Table 4, in some.

The networks are torchvision's, and so are the names and the start of their weights. Three things are changed:

- the stride of the first convolution, which is 1 for the paper's faces of 96x96 pixels;
- the operator of each depthwise convolution, which is made for the size of the map that it gives;
- what stands behind the last stage: nothing in an encoder, `Embedder` in a network that compares pictures.

At 96x96, first stride 1, `Embedder` has the MACs that the paper gives, all eight to the last digit, if norms,
activations and poolings count as in ptflops: `fundus_seg.profiling.count_macs(..., elementwise=True)`. Without them it
has 3 % (ShuffleNetV2 x1.5) to 20 % (MobileNetV2 x0.1) fewer.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor, nn

from fundus_seg.builtins import ANNEALED
from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.models.blocks import conv2d
from fundus_seg.models.slots import Slot, slot
from fundus_seg.protocol import DEEP_STRIDE
from fundus_seg.torchvision_compat import import_module

_mobilenet = import_module("torchvision.models.mobilenetv2", compiler=False)
_shufflenet = import_module("torchvision.models.shufflenetv2", compiler=False)

_MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
"""Blocks in the stages s1 to s7: the rows of Table 2 of its paper."""
_SHUFFLENET_BLOCKS = (4, 8, 4)
"""Blocks in the stages s2 to s4, as its paper counts them: its Table 5."""
_SHUFFLENET_CHANNELS = {
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 2048),
}
"""Width -> channels of the first convolution, of stages s2 to s4, and of the last convolution."""
_WIDEST = 4.0
_NAME = re.compile(r"(?P<operator>.+)-(?P<family>mobilenetv2|shufflenetv2)-(?P<width>\d+(\.\d+)?)(-(?P<stages>.+))?")


class Backbone(nn.Sequential):
    """Images (B, 3, H, W) -> a list of maps, one for each stride 1, 2, 4, ...: the last map of that stride.

    At stride 1 these are the images themselves, if the first convolution has another stride.

    Attributes:
        channels: of the last map.
        last_channels: of the convolution that `Embedder` adds.
        activation: the class of the activation behind it.
        strides: the stride of the map that each step gives; a step is an element of one of the parts.
        stages: the stage of each step, as s1; empty for a step in none.

    Args:
        parts: the parts of the network in their order, by the names that their weights have in torchvision.
    """

    def __init__(
        self,
        parts: dict[str, nn.Sequential],
        *,
        strides: list[int],
        stages: list[str],
        channels: int,
        last_channels: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__(OrderedDict(parts))
        self.strides = strides
        self.stages = stages
        self.channels = channels
        self.last_channels = last_channels
        self.activation = activation

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps x (B, 3, H, W) to the list of maps."""
        maps = {1: x}
        for stride, step in zip(self.strides, self.steps(), strict=True):
            x = maps[stride] = step(x)
        return list(maps.values())

    def steps(self) -> list[nn.Module]:
        """The steps in their order."""
        return [step for part in self for step in part.children()]


class Embedder(nn.Module):
    """Images (B, 3, H, W) -> embeddings (B, dimensions): a backbone and the layers behind it of the paper's code.

    A 1x1 convolution to `backbone.last_channels`, batch norm and activation; another batch norm, the mean over the map,
    a linear layer and a last batch norm. The paper does not describe them; its released code has them so.

    Args:
        backbone: as `mobilenet_v2` and `shufflenet_v2` make it.
        dimensions: of the embeddings.
    """

    def __init__(self, backbone: Backbone, dimensions: int = 512) -> None:
        super().__init__()
        self.backbone = backbone
        width = backbone.last_channels
        self.last = nn.Sequential(conv2d(backbone.channels, width), nn.BatchNorm2d(width), backbone.activation())
        self.head = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, dimensions),
            nn.BatchNorm1d(dimensions),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, 3, H, W) to (B, dimensions); in training mode B must be at least 2."""
        embeddings: Tensor = self.head(self.last(self.backbone(x)[-1]))
        return embeddings


def mobilenet_v2(
    width: float = 1.0,
    operator: str | Slot = "depthwise",
    *,
    image_size: int = 96,
    first_stride: int = 1,
    output_stride: int = 32,
    stages: Collection[str] | None = None,
) -> Backbone:
    """MobileNetV2 without its last convolution and its classifier.

    Args:
        width: the width multiplier, above 0 and at most 4. Channels are rounded to multiples of 8, as in torchvision.
        operator: what stands where the depthwise convolutions stand: "depthwise" for these themselves, a key of
            `fundus_seg.models.slots.SLOTS`, or a function of your own, a `Slot`.
        image_size: height and width of the training images. Other images are taken as well; kernels that were learned
            for each position are then resampled.
        first_stride: of the first convolution, 1 or 2.
        output_stride: the largest stride of a map. Convolutions that would go beyond it get stride 1, and no dilation,
            so that all operators see the same.
        stages: which of the stages s1 to s7 get the operator; None: all.

    Raises:
        UsageError: the width, operator or a stage is not one of these.
    """
    if not 0 < width <= _WIDEST:
        raise UsageError(f"MobileNetV2 has no width {width:g}: write a number above 0, at most {_WIDEST:g}")
    layers = _mobilenet.MobileNetV2(num_classes=1, width_mult=width).features[:-1]
    names = ["", *(f"s{number}" for number, blocks in enumerate(_MOBILENET_BLOCKS, 1) for _ in range(blocks))]
    steps = list(zip(names, layers, strict=True))
    return Backbone(
        {"features": layers},
        strides=_change(steps, operator, image_size, first_stride, output_stride, stages),
        stages=[stage for stage, _ in steps],
        channels=layers[-1].out_channels,
        last_channels=8 * round(64 * max(1.0, width)),
        activation=nn.ReLU6,
    )


def shufflenet_v2(
    width: float = 1.0,
    operator: str | Slot = "depthwise",
    *,
    image_size: int = 96,
    first_stride: int = 1,
    output_stride: int = 32,
    stages: Collection[str] | None = None,
) -> Backbone:
    """ShuffleNetV2 without its last convolution and its classifier.

    Args:
        width: 0.5, 1, 1.5 or 2: the networks of its paper.
        operator: as in `mobilenet_v2`.
        image_size: as in `mobilenet_v2`.
        first_stride: as in `mobilenet_v2`.
        output_stride: as in `mobilenet_v2`.
        stages: which of the stages s2 to s4, as its paper counts them, get the operator; None: all.

    Raises:
        UsageError: as `mobilenet_v2`.
    """
    if width not in _SHUFFLENET_CHANNELS:
        raise UsageError(
            f"ShuffleNetV2 has no width {width:g}: take {', '.join(map('{:g}'.format, _SHUFFLENET_CHANNELS))}"
        )
    channels = _SHUFFLENET_CHANNELS[width]
    network = _shufflenet.ShuffleNetV2(list(_SHUFFLENET_BLOCKS), list(channels), num_classes=1)
    parts = {"conv1": network.conv1, "maxpool": nn.Sequential(network.maxpool)}
    stage_parts = {f"stage{number}": getattr(network, f"stage{number}") for number in (2, 3, 4)}
    steps = [("", step) for part in parts.values() for step in part]
    steps += [(name.replace("tage", ""), step) for name, part in stage_parts.items() for step in part]
    return Backbone(
        parts | stage_parts,
        strides=_change(steps, operator, image_size, first_stride, output_stride, stages),
        stages=[stage for stage, _ in steps],
        channels=channels[3],
        last_channels=channels[4],
        activation=nn.ReLU,
    )


_FAMILIES: dict[str, Callable[..., Backbone]] = {"mobilenetv2": mobilenet_v2, "shufflenetv2": shufflenet_v2}


def is_backbone(encoder: str) -> bool:
    """Whether an encoder's name has the form OPERATOR-FAMILY-WIDTH or OPERATOR-FAMILY-WIDTH-STAGES."""
    return _NAME.fullmatch(encoder) is not None


def named_backbone(encoder: str, image_size: int) -> Backbone:
    """The backbone of a name such as `tvconv-mobilenetv2-0.5` or `tvconv-shufflenetv2-1.0-s3+s4`, to segment with.

    Its first stride is 2 and its largest 16.

    Raises:
        UsageError: the operator, width or a stage is unknown; or the operator has a temperature, which training lowers
            in the ASPP alone.
    """
    given = _NAME.fullmatch(encoder)
    if given is None:
        raise UsageError(f"encoder '{encoder}': write OPERATOR-FAMILY-WIDTH, such as tvconv-mobilenetv2-0.5")
    if given["operator"] in ANNEALED:
        raise UsageError(f"encoder '{encoder}': {given['operator']} is trained in the ASPP alone, by --op")
    return _FAMILIES[given["family"]](
        float(given["width"]),
        given["operator"],
        image_size=image_size,
        first_stride=2,
        output_stride=DEEP_STRIDE,
        stages=given["stages"] and given["stages"].split("+"),
    )


def _change(
    steps: Iterable[tuple[str, nn.Module]],
    operator: str | Slot,
    image_size: int,
    first_stride: int,
    output_stride: int,
    stages: Collection[str] | None,
) -> list[int]:
    """Set strides and replace depthwise convolutions in place; the stride of each step's map from the images.

    A step has one stride: its depthwise convolutions, where it has any, give maps of the step's own size.
    """
    make, side, reached = slot(operator), image_size, 1
    strides: list[int] = []
    known = list(dict.fromkeys(stage for stage, _ in steps if stage))
    for stage in stages or ():
        if stage not in known:
            raise UsageError(unknown_name("stage", stage, known))
    for stage, step in steps:
        strided = [module for module in step.modules() if isinstance(module, nn.Conv2d | nn.MaxPool2d)]
        strided = [module for module in strided if _stride(module) > 1]
        stride = max(map(_stride, strided), default=1)
        wanted = min(stride, output_stride // reached) if strides else first_stride
        for module in strided:
            module.stride = (wanted, wanted)
        reached *= wanted
        strides.append(reached)
        side = (side - 1) // wanted + 1
        if make is not None and stage and (stages is None or stage in stages):
            _fill(step, make, (side, side), wanted)
    return strides


def _fill(step: nn.Module, make: Slot, size: tuple[int, int], stride: int) -> None:
    for parent in list(step.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.groups == child.in_channels:
                setattr(parent, name, make(child.in_channels, size, stride))


def _stride(module: Any) -> int:
    return module.stride if isinstance(module.stride, int) else int(module.stride[0])
