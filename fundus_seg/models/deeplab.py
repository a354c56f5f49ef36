"""DeepLabV3+ as in the TVConv paper: a pretrained encoder, an ASPP of any operator, a light decoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fundus_seg.builtins import OPERATORS, WHOLE_ASPP
from fundus_seg.models.aspp import ASPP
from fundus_seg.models.blocks import conv2d, conv_bn_relu, separable
from fundus_seg.models.encoders import LOW_STRIDE, Encoder, build_encoder
from fundus_seg.models.operators import tried
from fundus_seg.models.placement import branch_settings, in_encoder, placed
from fundus_seg.models.slots import DEPTHWISE, Slot
from fundus_seg.network_spec import NetworkSpec
from fundus_seg.ops.upsampling import upsample_bilinear
from fundus_seg.plugins import find, is_plugin
from fundus_seg.protocol import DEEP_STRIDE, STRUCTURES, check_side

LOW_LEVEL_WIDTH = 48


def build_model(
    op: str,
    *,
    encoder: str = "mobilenet_v2",
    encoder_weights: str | Path | None = None,
    image_size: int = 256,
    aspp_channels: int = 256,
    expansion: int = 6,
    generator_channels: int = 64,
    generator_layers: int = 3,
    affinity_channels: int = 4,
    ablation: str = "none",
    placement: str = "aspp",
) -> DeepLabV3Plus:
    """The segmentation network: photographs (B, 3, H, W) in [-1, 1] -> logits (B, 2, H, W), channels ("disc", "cup").

    Its attribute `spec` holds these arguments except the weights, and of the last four only those that are not the
    default: `build_model(**network.spec)` makes the same network.

    Args:
        op: the operator of the ASPP's three spatial branches, a key of `fundus_seg.builtins.OPERATORS`: "conv",
            "depthwise", "tvconv", one of their controls or another paper's ("mlp-mixer" replaces the whole ASPP); or
            `package.module:factory` of your own, which is imported.
        encoder: name of an encoder that segmentation_models_pytorch can run at output stride 16, or `tu-NAME` for a
            vision transformer of timm.
        encoder_weights: "imagenet", the path of a state dict (.pth, .pt or .safetensors), or None ("none").
        image_size: height and width in pixels of the training images, a multiple of 16. The network takes other
            multiples of 16 as well; "tvconv", "untied" and "linear" then resample their kernels, learned for this size,
            "axial" its embeddings of offsets, and "mlp-mixer" the map.
        aspp_channels: width of ASPP and decoder.
        expansion: channels within the inverted residual blocks, as a multiple of their input channels.
        generator_channels: width of TVConv's weight generator; the width of "depthwise-wide" follows from it.
        generator_layers: blocks of TVConv's weight generator, after its input block.
        affinity_channels: affinity maps of each TVConv.
        ablation: what is taken from "tvconv" or added to it: parts of `fundus_seg.builtins.ABLATIONS` joined by `+`, or
            "none". With "data-affinity" the affinity maps are 1 until `start_affinity_maps` sets them.
        placement: where the operator stands: parts of `fundus_seg.builtins.PLACES` joined by `+`. Without "aspp", the
            three branches are those of "depthwise".

    Raises:
        UsageError: the operator is unknown, or a plugin that cannot be loaded or used; the encoder cannot be used; the
            image size is not a multiple of 16; the ablation or the placement is unknown, or does not go with the
            operator or the encoder.
        CheckpointError: the encoder's weights cannot be found or read, or do not fit.
    """
    find("operator", op, OPERATORS)  # its faults come before the encoder's weights are downloaded
    check_side("image_size", image_size)
    spec = NetworkSpec(
        op=op,
        encoder=encoder,
        image_size=image_size,
        aspp_channels=aspp_channels,
        expansion=expansion,
        generator_channels=generator_channels,
        generator_layers=generator_layers,
        affinity_channels=affinity_channels,
        ablation=ablation,
        placement=placement,
    )
    change = in_encoder(spec)
    return assemble(build_encoder(encoder, encoder_weights, image_size=image_size, change=change), spec)


def assemble(body: Encoder, spec: NetworkSpec) -> DeepLabV3Plus:
    """The network of a spec around its encoder, which is built already; errors are those of `build_model`."""
    check_side("image_size", spec.image_size)
    operator = find("operator", spec.op if "aspp" in spec.places else DEPTHWISE, OPERATORS)
    if is_plugin(spec.op):
        operator = partial(tried, spec.op, operator)
    make_branch = partial(operator, settings=branch_settings(spec))
    slot = placed(spec) if spec.places != ("aspp",) else None
    return DeepLabV3Plus(
        body,
        make_branch(body.deep_channels, spec.aspp_channels, 1)
        if spec.op in WHOLE_ASPP
        else ASPP(body.deep_channels, spec.aspp_channels, make_branch),
        Decoder(
            body.low_channels,
            spec.aspp_channels,
            len(STRUCTURES),
            slot=slot if "decoder" in spec.places else None,
            side=spec.image_size // LOW_STRIDE,
        ),
        spec=spec.plain(),
    )


class DeepLabV3Plus(nn.Module):
    """(B, 3, H, W) -> logits (B, outputs, H, W), H and W multiples of 16."""

    def __init__(self, encoder: Encoder, aspp: nn.Module, decoder: Decoder, *, spec: dict[str, str | int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.aspp = aspp
        self.decoder = decoder
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """Maps images x (B, 3, H, W) in [-1, 1] to logits (B, outputs, H, W).

        Raises:
            ValueError: H or W is not a multiple of 16.
            MemoryError: the images are so large that kernels would take more than the operator's `kernel_cache_bytes`.
        """
        height, width = x.shape[2:]
        if height % DEEP_STRIDE or width % DEEP_STRIDE:
            fit = "x".join(str(-(-side // DEEP_STRIDE) * DEEP_STRIDE) for side in (height, width))
            raise ValueError(f"images are {height}x{width}: resize or pad both to multiples of {DEEP_STRIDE} ({fit}).")
        low, deep = self.encoder(x)
        return upsample_bilinear(self.decoder(low, self.aspp(deep)), (height, width))


class Decoder(nn.Module):
    """Low-level (B, low_channels, h, w) and ASPP features (B, channels, h', w') -> logits (B, outputs, h, w).

    Args:
        low_channels, channels, outputs: of the maps.
        slot: an operator, around which the 3x3 convolution becomes a separable one; None: it stays as it is.
        side: h = w at the training size, for which the operator is made.
    """

    def __init__(
        self, low_channels: int, channels: int, outputs: int, *, slot: Slot | None = None, side: int = 0
    ) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(low_channels, LOW_LEVEL_WIDTH)
        fused = LOW_LEVEL_WIDTH + channels
        self.fuse = (
            separable(fused, channels, slot(fused, (side, side), 1)) if slot else conv_bn_relu(fused, channels, 3)
        )
        self.classify = conv2d(channels, outputs, bias=True)

    def forward(self, low: Tensor, deep: Tensor) -> Tensor:
        """Maps low (B, low_channels, h, w) and deep (B, channels, h', w') to logits (B, outputs, h, w)."""
        deep = upsample_bilinear(deep, low.shape[2:])
        logits: Tensor = self.classify(self.fuse(torch.cat([self.reduce(low), deep], dim=1)))
        return logits


def scale_photographs(images: Tensor) -> Tensor:
    """uint8 photographs, of any shape, scaled to what the network takes: float32 in [-1, 1]."""
    return images.float() / 127.5 - 1
