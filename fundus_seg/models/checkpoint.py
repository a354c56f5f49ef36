"""Checkpoints: weights, and the plain `model_spec` that rebuilds their network. A checkpoint is data, never code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fundus_seg.errors import CheckpointError, FundusSegError, UntrustedError
from fundus_seg.models.deeplab import build_model
from fundus_seg.plugins import is_unnamed
from fundus_seg.runs.atomic import atomic_path

CHECKPOINT_FORMAT = 1


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
    """The content of a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, has a newer format, or is no checkpoint of
            fundus-seg.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it holds more than plain data (or is damaged)") from error
    except Exception as error:  # torch raises many kinds of errors on damaged files
        raise CheckpointError(f"{path}: damaged, cannot be read as a checkpoint") from error
    if not isinstance(content, dict) or not {"format", "model_spec", "usage", "model"} <= content.keys():
        raise CheckpointError(f"{path}: not a checkpoint of fundus-seg (no model_spec in it)")
    if not isinstance(content["format"], int) or content["format"] > CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: format {content['format']} is newer than this fundus-seg reads; update it")
    return content


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; equal states give equal bytes."""
    # A file object, not a path: torch would write the temporary file's random name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # torch's zip writer reports a full disk in its own words
            raise OSError(str(error).splitlines()[0]) from error


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint, in evaluation mode, and its usage.

    Raises:
        CheckpointError: as `read_checkpoint`; or the weights do not fit the network that `model_spec` names; or the
            operator is from outside the package and the caller has not named it, since no checkpoint imports code.
    """
    content = read_checkpoint(path)
    spec = content["model_spec"]
    op = spec.get("op") if isinstance(spec, dict) else None
    if is_unnamed(op):
        raise UntrustedError(path, str(op))
    try:
        network = build_model(**spec)
        network.load_state_dict(content["model"])
    except (FundusSegError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit the network it names") from error
    return network.eval(), content["usage"]
