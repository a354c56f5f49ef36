"""The trust calibration of a run or an ensemble, in the file trust.json: written by `calibrate`, used by `predict`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fundus_seg.digests import short_hash
from fundus_seg.errors import RunError
from fundus_seg.inference.case_columns import TRUST
from fundus_seg.inference.members import Member
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import write_json
from fundus_seg.trust.conformal import cases_needed
from fundus_seg.trust.quality import Quality, overall
from fundus_seg.trust.signals import Gaussians, Range, Signals

NAME = "trust.json"
_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Features(BaseModel):
    """What the features of one network's encoder are like on its training domains."""

    model_config = _CONFIG

    means: dict[str, list[float]]
    """By domain, of each feature."""
    variance: list[float]
    """Of each feature, within domains."""

    @property
    def gaussians(self) -> Gaussians:
        """The same as arrays."""
        return Gaussians(np.array(list(self.means.values())), np.array(self.variance))


class Reference(BaseModel):
    """What the training photographs are like, as their networks see them."""

    model_config = _CONFIG

    framing: Range
    """The disc's share of the crop (`data.framing`)."""
    sharpness: Range
    lightness: Range
    features: dict[str, Features]
    """By the digest of each network's checkpoint."""


class Interval(BaseModel):
    """What an interval of the vertical cup-to-disc ratio is made of.

    The scores are how far each calibration case's true ratio lay outside the ratios of the single predictions.
    """

    model_config = _CONFIG

    alpha: Annotated[float, Field(gt=0, lt=1)]
    """The probability, at most, that an interval misses the true ratio of a new photograph of the same domains."""
    margin: float | None
    """What widens the single predictions' ratios on both sides; null where there are too few cases for alpha."""
    scores: list[float]
    signals: dict[str, list[float]]
    """Of the same cases, by name: what weights can be estimated from."""

    @property
    def lacking(self) -> str:
        """Why there are no intervals; empty where there are."""
        need = cases_needed(self.alpha)
        return "" if self.margin is not None else f"{len(self.scores)} cases, and alpha {self.alpha:g} needs {need}"

    def around(self, ratios: Sequence[float], margin: float | None = None) -> tuple[float, float]:
        """The interval about some ratios, within [0, 1]; NaN without a margin or where a ratio is not defined.

        Args:
            ratios: those of the prediction and of the single predictions.
            margin: None: that of the calibration.
        """
        margin = self.margin if margin is None else margin
        if margin is None or not np.isfinite(ratios).all():
            return math.nan, math.nan
        return max(0.0, min(ratios) - margin), min(1.0, max(ratios) + margin)


class TrustCalibration(BaseModel):
    """What turns signals into trust, and what it was calibrated on."""

    model_config = _CONFIG

    format: Literal[1] = 1
    checkpoints: list[str]
    """SHA-256 of each network's checkpoint, in order."""
    domains: dict[str, int]
    """Number of cases of each training domain: of the half of its test split that chose no checkpoint."""
    data: dict[str, str]
    """Digest of each split that was read, by `domain/split`."""
    copies: int
    """Of each case the altered copies that the predicted DSC was fitted on too."""
    reference: Reference
    disc: Quality | None
    cup: Quality | None
    """What predicts the DSC of each; null where too few cases have a truth."""
    interval: Interval
    versions: dict[str, str]

    def quality(self, structure: str) -> Quality | None:
        """What predicts the DSC of a structure."""
        found: Quality | None = getattr(self, structure)
        return found

    def values(self, signals: Signals, vertical_cdr: float) -> dict[str, float]:
        """The columns TRUST of a photograph; NaN where nothing can be said. An empty mask has a predicted DSC of 0.

        Args:
            signals: of the photograph.
            vertical_cdr: the ratio that was predicted for it.
        """
        ends = self.interval.around(signals.ratios_with(vertical_cdr))
        return dict(zip(TRUST, (*self._predicted(signals), *ends), strict=True))

    def overall(self, signals: Signals) -> float:
        """The predicted DSC of a photograph, the mean of disc and cup; NaN where nothing was fitted."""
        return overall(self._predicted(signals))

    def _predicted(self, signals: Signals) -> list[float]:
        qualities = zip(map(self.quality, STRUCTURES), signals.empty, strict=True)
        return [
            math.nan if quality is None else 0.0 if empty else quality(signals.values) for quality, empty in qualities
        ]

    @property
    def digest(self) -> str:
        """Names the contents, versions apart."""
        return short_hash(self.model_dump(mode="json", exclude={"versions"}), digits=16)


def write_trust(folder: Path, trust: TrustCalibration) -> None:
    """Write the trust calibration of the run or the ensemble in a folder, atomically."""
    write_json(folder / NAME, trust.model_dump(mode="json"))


def trust_of(members: Sequence[Member]) -> TrustCalibration | None:
    """The trust calibration of the networks that predict together; None where there is none of these very weights.

    That of a run lies in its folder, that of an ensemble in `ensemble-<digest>` beside the folders of its runs.

    Raises:
        RunError: a trust.json is there and damaged.
    """
    runs = [member.checkpoint.parent.parent for member in members if member.checkpoint.parent.name == "checkpoints"]
    if len(runs) != len(members):
        return None
    places = runs if len(runs) == 1 else sorted({path for run in runs for path in run.parent.glob("ensemble-*")})
    return next(filter(None, (read_trust(place, [member.digest for member in members]) for place in places)), None)


def read_trust(folder: Path, checkpoints: Sequence[str]) -> TrustCalibration | None:
    """The trust calibration in a folder; None where there is none, or where it is of other weights.

    Args:
        folder: of a run or an ensemble.
        checkpoints: SHA-256 of each checkpoint, in any order.

    Raises:
        RunError: it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        trust = TrustCalibration.model_validate_json(path.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read; `fundus-seg calibrate` the run again, or remove the file") from error
    return trust if trust.checkpoints == sorted(checkpoints) else None
