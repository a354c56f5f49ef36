"""Checkpoints: weights beside the plain `model_spec` that rebuilds their network. Data, never code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fundus_seg.errors import CheckpointError, FundusSegError
from fundus_seg.models.deeplab import build_model

CHECKPOINT_FORMAT = 1


def network_state(network: Any) -> dict[str, Any]:
    """What a checkpoint holds of a network that `build_model` made, wrapped by Fabric or not."""
    return {"format": CHECKPOINT_FORMAT, "model_spec": dict(network.spec), "model": network.state_dict()}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: missing, damaged, with code in it, of a newer format, or not one of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it holds more than plain data (or is damaged)") from error
    except Exception as error:  # torch's readers of damaged files raise kinds of every sort
        raise CheckpointError(f"{path}: damaged, cannot be read as a checkpoint") from error
    if not isinstance(content, dict) or not {"format", "model_spec", "model"} <= content.keys():
        raise CheckpointError(f"{path}: not a checkpoint of fundus-seg (no model_spec in it)")
    if not isinstance(content["format"], int) or content["format"] > CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: format {content['format']} is newer than this fundus-seg reads; update it")
    return content


def load_network(path: Path) -> nn.Module:
    """The network of a checkpoint, in evaluation mode.

    Raises:
        CheckpointError: as `read_checkpoint`, or weights that do not fit the network that `model_spec` names.
    """
    content = read_checkpoint(path)
    try:
        network = build_model(**content["model_spec"])
        network.load_state_dict(content["model"])
    except (FundusSegError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit the network it names") from error
    return network.eval()
