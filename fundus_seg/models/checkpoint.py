"""Checkpoints: weights, and the plain `model_spec` that rebuilds their network. A checkpoint is data, never code."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fundus_seg.errors import CheckpointError, FundusSegError, UntrustedError, UsageError
from fundus_seg.exchanged import EXCHANGED
from fundus_seg.models.deeplab import DeepLabV3Plus, assemble
from fundus_seg.models.encoders import build_encoder, encoder_shapes
from fundus_seg.models.exchange import read_exchange
from fundus_seg.models.placement import in_encoder
from fundus_seg.models.shapes import without_numbers
from fundus_seg.network_spec import KINDS, OPTIONAL, NetworkSpec
from fundus_seg.plugins import is_plugin, is_unnamed
from fundus_seg.runs.atomic import atomic_path

CHECKPOINT_FORMAT = 1
_LARGEST = 4096
"""The largest number in a `model_spec`: networks of this size exist, but what the weights do not show is bounded."""


def network_state(network: Any, usage: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint, for a network that `build_model` made, wrapped by Fabric or not.

    Args:
        network: the network.
        usage: plain values that say how images are prepared and logits used: interpolation, threshold and the like.
    """
    return {
        "format": CHECKPOINT_FORMAT,
        "model_spec": dict(network.spec),
        "usage": usage,
        "model": network.state_dict(),
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, or of a `.safetensors` made of one, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: the file is missing, damaged (checksums tell a single changed bit), holds code, weights that
            are not finite numbers, has a newer format, or is no checkpoint of fundus-seg.
    """
    try:
        content = read_exchange(path) if path.suffix == EXCHANGED else _read_archive(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it holds more than plain data (or is damaged)") from error
    except Exception as error:  # zipfile and torch raise many kinds of errors on damaged files
        raise CheckpointError(f"{path}: damaged, cannot be read as a checkpoint") from error
    if not isinstance(content, dict) or not {"format", "model_spec", "usage", "model"} <= content.keys():
        raise CheckpointError(f"{path}: not a checkpoint of fundus-seg (no model_spec in it)")
    if not isinstance(content["format"], int) or content["format"] > CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: format {content['format']} is newer than this fundus-seg reads; update it")
    for name, value in _weights(path, content).items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: its weights are no finite numbers (the first such tensor is {name})")
    return content


def _read_archive(path: Path) -> Any:
    archive = io.BytesIO(path.read_bytes())
    _check_sums(archive)
    return torch.load(archive, map_location="cpu", weights_only=True)


def _check_sums(archive: io.BytesIO) -> None:
    """Compare every part of an archive with its checksum, which torch writes but does not test.

    Raises:
        ValueError, zipfile.BadZipFile: a part is damaged, or it is no archive that torch has written.
    """
    with zipfile.ZipFile(archive) as parts:
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
            raise ValueError("compressed, which torch does not do")  # a few bytes could unpack to any size
        if parts.testzip() is not None:
            raise ValueError("a checksum does not agree")
    archive.seek(0)


def _weights(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    weights = content["model"]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: not a checkpoint of fundus-seg (its weights are no tensors)")
    return weights


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; equal states give equal bytes, also where one was read from a checkpoint.

    Raises:
        RunError: the file cannot be written.
    """
    # Not to the path: torch would write the temporary file's random name into the archive. Nor to the open file: of a
    # full disk, torch would only tell an assertion of its own.
    archive = io.BytesIO()
    torch.save(_canonical(dict(state)), archive)
    with atomic_path(path) as temporary:
        temporary.write_bytes(archive.getbuffer())


def _canonical(value: Any) -> Any:
    """A copy of nested plain containers in which equal strings are one object and tensors are on the CPU.

    A pickle refers back to a string that it has met, but not to an equal one. Strings that were read from a checkpoint
    are equal to those in the code, but not the same.
    """
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        copy = type(value)((_canonical(key), _canonical(each)) for key, each in value.items())
        vars_of = getattr(value, "__dict__", {})  # a state dict has versions of its modules in an attribute
        for name, each in vars_of.items():
            setattr(copy, name, _canonical(each))
        return copy
    if isinstance(value, (list, tuple)):
        return type(value)(map(_canonical, value))
    return value.cpu() if isinstance(value, Tensor) else value


def load_network(path: Path) -> tuple[DeepLabV3Plus, dict[str, Any]]:
    """The network of a checkpoint, in evaluation mode, and its usage.

    The shapes of the weights are compared with those of the network before it takes any memory.

    Raises:
        CheckpointError: as `read_checkpoint`; or `model_spec` is not one that fundus-seg writes; or the weights do not
            fit the network that it names; or the operator is from outside the package and the caller has not named it,
            since no checkpoint imports code.
    """
    content = read_checkpoint(path)
    spec = _checked_spec(path, content["model_spec"])
    op = spec["op"]
    if is_unnamed(op):
        raise UntrustedError(path, str(op))
    try:
        network = _network(NetworkSpec(**spec), content["model"])
        network.load_state_dict(content["model"])
    except (FundusSegError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: its weights do not fit the network it names ({reason})") from error
    return network.eval(), content["usage"]


def _checked_spec(path: Path, spec: object) -> dict[str, Any]:
    """The spec itself, if it has the keys and kinds of values that `DeepLabV3Plus.spec` has."""
    named = [key for key in KINDS if key not in OPTIONAL]
    if not isinstance(spec, dict) or spec.keys() - OPTIONAL.keys() != {*named}:
        raise CheckpointError(f"{path}: its model_spec is not one that fundus-seg writes: {', '.join(named)}")
    for key, value in spec.items():
        if type(value) is not KINDS[key] or (isinstance(value, int) and not 0 < value <= _LARGEST):
            raise CheckpointError(f"{path}: its model_spec has the {key} {value!r:.40}, which no network has")
    return spec


def _network(spec: NetworkSpec, weights: Mapping[str, Tensor]) -> DeepLabV3Plus:
    """The network of a spec; weights of other names or shapes are refused before it takes memory.

    Raises:
        UsageError: the network cannot be built.
        ValueError: the first tensor that differs.
    """
    given = {name: tuple(value.shape) for name, value in weights.items()}
    change = in_encoder(spec)
    with contextlib.suppress(UsageError):  # some encoders compute with numbers while they are built
        shapes = encoder_shapes(spec.encoder, image_size=spec.image_size, change=change)
        expected = {f"encoder.{name}": shape for name, shape in shapes.items()}
        _compare(expected, {name: shape for name, shape in given.items() if name.startswith("encoder.")})
    body = build_encoder(spec.encoder, image_size=spec.image_size, change=change)
    try:
        with without_numbers():
            whole = assemble(body, spec).state_dict()
    except UsageError:
        if not is_plugin(spec.op):  # code that the caller trusts, and that may not work without numbers
            raise
    else:
        _compare({name: tuple(value.shape) for name, value in whole.items()}, given)
    return assemble(body, spec)


def _compare(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    for name in [*expected, *given]:
        if expected.get(name) != given.get(name):
            wanted, found = (shapes.get(name, "not there") for shapes in (expected, given))
            raise ValueError(f"{name} is {wanted} in the network, {found} in the file")
