"""Vision transformers of timm as encoders: feature maps at strides 4 and 16, for images of any size.

The maps are made as in DPT (R. Ranftl, A. Bochkovskiy, V. Koltun: Vision Transformers for Dense Prediction. ICCV 2021):
the tokens of a block are put back to their places, class and register tokens are dropped, and a transposed convolution
makes a finer map of those of an early block. Only two of DPT's four maps are made, those that DeepLabV3+ reads; the map
at stride 16 is that of the last block itself, since the ASPP projects it; the finer one has an eighth of the
transformer's channels, as in the DPT of DINOv2 (M. Oquab et al.: DINOv2: Learning Robust Visual Features without
Supervision. TMLR 2024).
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.errors import one_line
from fundus_seg.models.blocks import conv2d
from fundus_seg.protocol import DEEP_STRIDE
from fundus_seg.torchvision_compat import import_module

timm = import_module("timm", compiler=False)
_FAMILIES = tuple(
    getattr(import_module(f"timm.models.{module}"), name)
    for module, name in (("vision_transformer", "VisionTransformer"), ("eva", "Eva"))
)
"""timm's families of transformers that take images of any size; DINOv3 is of the second."""
_PREFIX = "tu-"
_WRAPPED = ("module.", "backbone.")
"""What stands before the names in files of a training: of a parallel network, and of a transformer below its heads."""
LEFT_OUT = ("attn_pool.", "decoder", "fc_norm.", "head.", "head_dist.", "lm_head.", "mask_token", "norm.")
"""How the names of those tensors begin that a file may hold beyond the encoder's own: parts that only pretraining or a
classifier needs, and the last norm, which a few of timm's transformers lack."""
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's grey values from 0 to 1, of which masked autoencoders were trained."""
_NAMED = 3
"""How many tensors an error names."""


def is_transformer(encoder: str) -> bool:
    """Whether an encoder's name, `tu-NAME`, is that of one of timm's models that `Transformer` adapts."""
    name = encoder.removeprefix(_PREFIX)
    if name == encoder or not timm.is_model(name):
        return False
    family = _factory(name).__annotations__.get("return")
    return isinstance(family, type) and issubclass(family, _FAMILIES)


class Transformer(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> two maps (B, channels, H/16, W/16): tokens of an early and of the last block.

    Both are taken behind the transformer's last norm. The early block is the last one of the first quarter.

    Images are normalised with the mean and standard deviation that the transformer was pretrained with, which stand in
    the state dict. Where its patches have another side p than 16 pixels, images are resampled (bilinear, antialiased)
    to p/16 of their size first: there is one token for each 16x16 pixels, whatever p.

    Args:
        encoder: `tu-NAME`, for which `is_transformer` holds.
        image_size: height and width of the training images. Position embeddings are interpolated to their map once, and
            then trained as they are. For images of another size they are interpolated (bicubic) at each call.
        pretrained: whether timm is to download the weights that it has under this name.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: str, image_size: int, *, pretrained: bool = False) -> None:
        super().__init__()
        self.name = encoder.removeprefix(_PREFIX)
        self.model: Any = timm.create_model(self.name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
        self.model.prune_intermediate_layers([-1])  # takes away what only a classifier needs
        self.patch: int = self.model.patch_embed.feat_ratio()
        self.model.set_input_size((image_size * self.patch // DEEP_STRIDE,) * 2)
        self.channels: int = self.model.embed_dim
        depth = len(self.model.blocks)
        self.blocks = [max(depth // 4 - 1, 0), depth - 1]
        for name in ("mean", "std"):
            self.register_buffer(name, _per_channel(self.model.pretrained_cfg[name]))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps x (B, 3, H, W), H and W multiples of 16, to the two maps (B, channels, H/16, W/16)."""
        if self.patch != DEEP_STRIDE:
            size = [side * self.patch // DEEP_STRIDE for side in x.shape[2:]]
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        x = ((x + 1) / 2 - self.mean) / self.std
        maps = self.model.forward_intermediates(x, indices=self.blocks, norm=True, intermediates_only=True)
        return [maps[0], maps[-1]]

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights that have the names of timm, of DINOv2, of DINOv3, or of a masked autoencoder such as RETFound.

        Position embeddings and patches of another size are interpolated. Tensors whose names begin as in `LEFT_OUT` are
        not needed. If a masked autoencoder's decoder is among them, images are normalised as in its training, with the
        mean and standard deviation of ImageNet, whatever timm expects under the encoder's name.

        Raises:
            ValueError: tensors are missing, have other shapes, or are of another network; the first ones are named.
        """
        for prefix in _WRAPPED:
            within = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            tensors = within or tensors
        found, wanted = self._renamed(tensors), self.model.state_dict()
        misfits = [key for key, value in wanted.items() if key not in found or found[key].shape != value.shape]
        others = [key for key in found if key not in wanted and not key.startswith(LEFT_OUT)]
        if misfits or others:
            reasons = {"missing or of another shape": misfits, "of another network": others}
            told = (f"{_some(names)} {reason}" for reason, names in reasons.items() if names)
            raise ValueError(f"{len(wanted) - len(misfits)} of its {len(wanted)} tensors fit; {'; '.join(told)}")
        self.model.load_state_dict({key: found[key] for key in wanted})
        if any(key.startswith("decoder_") for key in tensors):
            self.mean, self.std = map(_per_channel, _IMAGENET)

    def _renamed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under timm's names, as timm itself does it for the weights that it downloads."""
        rename = getattr(sys.modules[_factory(self.name).__module__], "checkpoint_filter_fn", lambda given, _: given)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # timm prints what it does not find
                found: dict[str, Tensor] = rename(dict(tensors), self.model)
        except Exception as error:  # whatever a tensor of an unexpected shape leads to
            raise ValueError(f"timm cannot read them: {one_line(error)}") from error
        for key, bias in tensors.items():  # those of DINOv3, of which timm leaves out what a model has no place for
            if key.endswith("qkv.bias") and not found.keys() & {key, key.replace("qkv.bias", "q_bias")}:
                query, _, value = bias.chunk(3)
                if query.any() or value.any():
                    raise ValueError(f"it has no place for {key}: take {_PREFIX}{self.name.partition('.')[0]}_qkvb")
        return found


class Reassemble(nn.Module):
    """The maps of a `Transformer` -> (B, channels // 8, 4h, 4w) of the early block, (B, channels, h, w) of the last.

    Args:
        channels: of the transformer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(channels // 8, 1)
        self.low = nn.Sequential(
            conv2d(channels, width, bias=True), nn.ConvTranspose2d(width, width, kernel_size=4, stride=4)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps the early and the last map (B, channels, h, w) to those at strides 4 and 16."""
        early, last = maps
        return self.low(early), last


def _factory(name: str) -> Any:
    """The function of timm that makes a model; `name` may have a tag, which says with which weights."""
    return timm.model_entrypoint(name.partition(".")[0])


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
