"""A network as ONNX in a folder: what lies in it, and what its `model.json` says. Nothing here imports torch.

- model.onnx: the graph (`fundus_seg.models.onnx_graph`)
- model.json: the network's shape, how it is used, its temperatures, and what trained it; `Card` has what is read again
- predict.py: draws masks without this package (`fundus_seg.inference.standalone`)
- LICENSE: of predict.py, and what was said of the weights
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fundus_seg.digests import bytes_digest
from fundus_seg.errors import CheckpointError
from fundus_seg.exchanged import CARD, ONNX
from fundus_seg.inference.calibration import Calibration

SCRIPT, LICENCE = "predict.py", "LICENSE"
CARD_FORMAT: Literal[1] = 1


class Card(BaseModel):
    """What `model.json` says as far as it is used; the rest of it is for the reader."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal[1]
    model_spec: dict[str, str | int]
    """As `build_model` takes it; `image_size` is the height and width that the graph takes."""
    usage: dict[str, Any]
    """Of a checkpoint: interpolation, scoring, framing."""
    calibration: Calibration | None
    digests: dict[str, str]
    """SHA-256 of the files that the card is of, by name."""


def read_card(folder: Path) -> Card:
    """What the `model.json` in a folder says.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / CARD
    try:
        return Card.model_validate_json(path.read_text("utf8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "damaged, or of another version"
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); copy the folder again, or export the network again"
        ) from error


def graph_of(folder: Path, card: Card) -> bytes:
    """The bytes of the `model.onnx` in a folder.

    Raises:
        CheckpointError: it is not the file that the card is of.
    """
    content = (folder / ONNX).read_bytes()
    if bytes_digest(content) != card.digests.get(ONNX):
        raise CheckpointError(
            f"{folder / ONNX}: not the file that {CARD} tells of; copy the folder again, or export the network again"
        )
    return content
