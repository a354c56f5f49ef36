"""Checkpoints to hand on, in the format safetensors: weights in half precision, and what is said of them.

A file holds what a checkpoint holds (`models.checkpoint`), and nothing that could be executed: the tensors, and a text
of JSON in its header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fundus_seg.errors import CheckpointError
from fundus_seg.exchanged import HEADER, read_header
from fundus_seg.runs.atomic import atomic_path

PARTS = ("format", "model_spec", "usage")
"""The parts of a checkpoint beside its weights."""


def write_exchange(path: Path, content: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a checkpoint's content atomically; equal contents give equal bytes.

    Args:
        path: the file, `.safetensors`.
        content: of a checkpoint, as `read_checkpoint` gives it; its floating-point tensors are written in 16 bits.
        about: plain values that stand beside it, by name: how it was made, what was measured, its licence.

    Raises:
        CheckpointError: a weight is too large for 16 bits.
        RunError: the file cannot be written.
    """
    halves = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in content["model"].items()
    }
    for name, value in halves.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: the weight {name} is too large for half precision")
    said = json.dumps({**about, **{part: content[part] for part in PARTS}}, sort_keys=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(halves, {HEADER: said}))  # its own writer would take the file's permissions away


def read_exchange(path: Path) -> dict[str, Any]:
    """The content of a checkpoint in a file that `write_exchange` wrote, its weights in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    said = read_header(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    weights = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    return {**{part: said[part] for part in PARTS if part in said}, "model": weights}
