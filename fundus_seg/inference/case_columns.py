"""The columns of `cases.csv`: one declaration for all who write the table, read it or turn it into another form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fundus_seg.metrics.rim import HOURS
from fundus_seg.protocol import STRUCTURES

Kind = Literal["text", "count", "number", "place"]
"""A text; a whole number from 0, or any number from 0; a whole number that may be negative. A number may be missing."""

With = Literal["always", "truth", "trust", "dicom"]
"""When a column is there: always, with true masks, with a calibrated trust, or where a photograph is DICOM."""


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    name: str
    kind: Kind
    where: With = "always"

    def holds(self, text: str) -> bool:
        """Whether a row may hold this text here."""
        if self.kind == "text" or not text:
            return True
        try:
            return (-math.inf < float(text) < math.inf) if self.kind == "place" else 0 <= float(text) < math.inf
        except ValueError:
            return False


CROP = ("crop_x", "crop_y", "crop_width", "crop_height")
DISC = ("disc_x", "disc_y", "disc_width", "disc_height")
RATIOS = ("vertical_cdr", "horizontal_cdr", "area_cdr")
RIM = tuple(f"rim_{hour or HOURS}" for hour in range(HOURS))
"""Twelve o'clock first, as `rim_profile` gives it."""
SCORES = tuple(f"dsc_{name}" for name in STRUCTURES)
TRUST = (*(f"predicted_dsc_{name}" for name in STRUCTURES), "vcdr_low", "vcdr_high")
PIXELS = tuple(f"{name}_pixels" for name in STRUCTURES)
CHANGED = tuple(f"{name}_pixels_changed" for name in STRUCTURES)
IDENTIFIERS = ("patient", "study")
PITCH = ("pixel_height_mm", "pixel_width_mm")
MILLIMETRES = ("disc_height_mm", "disc_width_mm", "disc_mm2", "cup_mm2")

COLUMNS = (
    Column("photograph", "text"),
    *(Column(name, "count") for name in ("height", "width")),
    Column("roi", "text"),
    *(Column(name, "place") for name in CROP[:2]),
    *(Column(name, "count") for name in (*CROP[2:], *PIXELS, "cup_pixels_outside_disc", *CHANGED)),
    *(Column(name, "number") for name in (*DISC, *RATIOS)),
    *(Column(name, "text") for name in ("eye", "eye_from")),
    *(Column(name, "number") for name in RIM),
    *(Column(name, "text") for name in ("isnt", "isnt_broken")),
    Column("framing", "number"),
    *(Column(name, "number", "truth") for name in SCORES),
    *(Column(name, "number", "trust") for name in TRUST),
    *(Column(name, "text", "dicom") for name in IDENTIFIERS),
    *(Column(name, "number", "dicom") for name in (*PITCH, *MILLIMETRES)),
    *(Column(name, "text") for name in ("warning", "status", "reason", "inputs")),
)
"""All columns, in their order; docs/guide.md says what each holds."""

BY_NAME = {column.name: column for column in COLUMNS}


def columns(*, scored: bool, dicom: bool = False, trusted: bool = False) -> tuple[str, ...]:
    """The columns of a table: with or without scores, what the headers of DICOM files say, and trust."""
    there: dict[With, bool] = {"always": True, "truth": scored, "trust": trusted, "dicom": dicom}
    return tuple(column.name for column in COLUMNS if there[column.where])
