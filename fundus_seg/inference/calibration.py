"""The temperatures of a run, in the file calibration.json beside its settings: written once, used by `predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fundus_seg.digests import file_digest
from fundus_seg.errors import RunError
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import write_json

_NAME = "calibration.json"
_Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Calibration(BaseModel):
    """What calibrates the probabilities of one checkpoint, and what it was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    checkpoint_sha256: str
    disc: _Temperature
    cup: _Temperature
    domains: dict[str, int]
    """Number of cases of each source domain: of the half of its test split, `calibrate`, that chose no checkpoint."""
    data: dict[str, str]
    """Digest of each of these splits, by `domain/split`."""
    size: int
    """Height and width at which the network saw the photographs, and at which its pixels were compared."""
    versions: dict[str, str]

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Divisors of the logits, in the order of STRUCTURES."""
        return tuple(getattr(self, structure) for structure in STRUCTURES)


def write_calibration(run: Path, calibration: Calibration) -> None:
    """Write the calibration of the run in a folder, atomically."""
    write_json(run / _NAME, calibration.model_dump(mode="json"))


def calibration_of(checkpoint: Path, digest: str | None = None) -> Calibration | None:
    """The calibration of a run's checkpoint; None where there is none, or where it is of other weights.

    Args:
        checkpoint: the file, in `checkpoints` in the run's folder.
        digest: its SHA-256, if it is known already.

    Raises:
        RunError: calibration.json is there and damaged.
    """
    path = checkpoint.parent.parent / _NAME
    if checkpoint.parent.name != "checkpoints" or not path.is_file():
        return None
    try:
        calibration = Calibration.model_validate(json.loads(path.read_text("utf8")))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read; `fundus-seg calibrate` the run again, or remove the file") from error
    return calibration if calibration.checkpoint_sha256 == (digest or file_digest(checkpoint)) else None
