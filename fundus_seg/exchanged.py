"""The forms in which a network is handed on, by their files.

A checkpoint to hand on is a `.safetensors`, whose header has one text, JSON, under a name of ours. A network that runs
without torch is a folder with the files ONNX and CARD.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

EXCHANGED = ".safetensors"
"""The suffix of such a file (`models.exchange`)."""
HEADER = "fundus-seg"
"""The name of its text: safetensors writes several in random order, and equal networks should give equal bytes."""

WEIGHTS = f"model{EXCHANGED}"
"""Name of such a file where only a folder or a repository is named."""
ONNX, CARD = "model.onnx", "model.json"
"""The graph of a network, and what is said of it (`inference.onnx_folder`)."""


def is_onnx_folder(path: Path) -> bool:
    """Whether a folder holds a network as ONNX."""
    return (path / ONNX).is_file()


def read_header(path: Path) -> dict[str, Any]:
    """What the file says of its network, by name; nothing where it is another file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    try:
        with safe_open(path, "np") as file:
            said = json.loads((file.metadata() or {}).get(HEADER, "{}"))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if not isinstance(said, dict):
        raise ValueError(f"{HEADER} is no object of JSON")
    return said
