"""What `calibrate` has measured, as reports read it: without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fundus_seg.runs.identity import Column
from fundus_seg.statistics.calibration import Measured

Where = Literal["in-domain", "unseen"]


@dataclass(frozen=True)
class CalibratedCases:
    """One structure of a run's cases, before and after calibration.

    Attributes:
        column: the column of a table that the run belongs to.
        holdout: its unseen domain.
        seed: its seed.
        phantom: whether the photographs are the phantom's.
        structure: the structure.
        where: whether the cases are of the unseen domain, or those that the temperature was fitted on.
        domains: how many of them are of which domain.
        before: measures of the network as it is.
        after: measures with the temperature.
    """

    column: Column
    holdout: str
    seed: int
    phantom: bool
    structure: str
    where: Where
    domains: Mapping[str, int]
    before: Measured
    after: Measured
