"""What the header of a checkpoint to hand on says: a `.safetensors` with one text, JSON, under a name of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

EXCHANGED = ".safetensors"
"""The suffix of such a file (`models.exchange`)."""
HEADER = "fundus-seg"
"""The name of its text: safetensors writes several in random order, and equal networks should give equal bytes."""


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
