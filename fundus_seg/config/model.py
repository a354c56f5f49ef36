"""The settings of the network."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from fundus_seg.builtins import ABLATIONS, OPERATORS, PLACES
from fundus_seg.config.fields import EffectWith
from fundus_seg.config.section import Positive, Section, one_of, together, words
from fundus_seg.network_spec import ablation_parts, placement_parts
from fundus_seg.protocol import BeforeItExisted

_OF_GENERATOR = EffectWith("model.op", ("tvconv", "depthwise-wide"))


class ModelConfig(Section):
    """The network."""

    op: Annotated[str, *one_of("operator", OPERATORS)] = "tvconv"
    """Operator of the ASPP's branches, or of the places that model.placement names."""
    encoder: str = "mobilenet_v2"
    """Encoder, by its name in segmentation-models-pytorch, or tu-NAME for a model of timm, vision transformers
    included; weights have licences of their own (docs/guide.md). Or a light network with an operator in its depthwise
    slots, such as tvconv-mobilenetv2-0.5."""
    encoder_weights: Annotated[str, EffectWith("model.start", ("none",))] = "imagenet"
    """Initial weights of the encoder: none (random), the path of a state dict, or imagenet (downloaded once; those of
    tu-tf_efficientnet_lite0 come with the extra `weights` and need no network)."""
    freeze: Annotated[Literal["none", "encoder"], BeforeItExisted("none")] = "none"
    """encoder: its weights and the statistics of its norms stay as they start, and all else trains; none: everything
    trains."""
    start: Annotated[str, BeforeItExisted("none")] = "none"
    """Run or checkpoint whose whole network the training starts from, in place of encoder_weights (`--from`); none: no
    such network."""
    aspp_channels: Positive = 256
    """Channels of each branch of the ASPP, and of its output."""
    expansion: Positive = 6
    """Width of the inverted residual in each branch, as a multiple of its input channels."""
    generator_channels: Annotated[Positive, _OF_GENERATOR] = 64
    """Channels of the weight generator of tvconv."""
    generator_layers: Annotated[Positive, _OF_GENERATOR, BeforeItExisted(3)] = 3
    """Blocks of the weight generator of tvconv, after its input block and before its output convolution."""
    affinity_channels: Annotated[Positive, _OF_GENERATOR, BeforeItExisted(4)] = 4
    """Affinity maps of each tvconv, which its weight generator reads."""
    ablation: Annotated[
        str,
        *words(["none", *ABLATIONS], ablation_parts),
        EffectWith("model.op", ("tvconv",)),
        BeforeItExisted("none"),
    ] = "none"
    """What is taken from tvconv or added to it; parts combine, as in no-affines+replicate. random-affinity,
    data-affinity: affinity maps start at random, or from the mean and the SD of the training photographs, not at 1;
    no-affines: norms of the weight generator have no scale and shift of each position; replicate: its convolutions pad
    by the nearest value, not by zeros; branch-6, branch-12, branch-18: these branches alone have tvconv, the others
    depthwise; spatial-transformer: an affine map, predicted from each photograph, moves the affinity maps;
    dynamic-bias: a bias of each pixel, predicted from the photograph, is added to the output."""
    placement: Annotated[str, *words(PLACES, placement_parts), BeforeItExisted("aspp")] = "aspp"
    """Where the operator stands; places combine, as in aspp+decoder. aspp: in its three branches, which are depthwise
    otherwise; decoder: in its 3x3 convolution, which becomes a separable one; encoder-4, encoder-8, encoder-16: in the
    3x3 depthwise convolutions that give the encoder's maps of this stride."""

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        if self.freeze == "encoder" and "encoder" in self.placement:
            raise together(
                f"model.placement {self.placement} with model.freeze encoder: the operator in the encoder would stay "
                "as it starts, at random; leave one of the two out",
                "model.placement",
                "model.freeze",
            )
        return self
