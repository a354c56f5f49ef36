"""The epochs of a run, as metrics.csv and probe.csv have them, and the score by which checkpoints are chosen."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fundus_seg.errors import RunError
from fundus_seg.protocol import STRUCTURES


def read_epochs(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv or probe.csv, one per epoch; numbers to the last bit, an empty field as NaN.

    Raises:
        RunError: it cannot be read, or is not of epochs.
    """
    try:
        with path.open(newline="", encoding="utf8") as file:
            rows = [
                {name: float(text) if text != "" else math.nan for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
        return [row | {"epoch": int(row["epoch"])} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read; the same `fundus-seg train` command writes it again") from error


def score(dice_of: Mapping[str, float]) -> float:
    """The score that selection maximises: the mean over structures."""
    return math.fsum(dice_of.values()) / len(dice_of)


def row_score(row: Mapping[str, Any], prefix: str = "") -> float:
    """The score of an epoch by its row of metrics.csv; -inf where nothing was scored.

    Args:
        row: the row.
        prefix: empty for the network, `average_` for the mean of its weights.
    """
    dice_of = {name: row[f"{prefix}dice_{name}"] for name in STRUCTURES if f"{prefix}dice_{name}" in row}
    return score(dice_of) if dice_of else -math.inf
