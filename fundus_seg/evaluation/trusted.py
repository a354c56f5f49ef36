"""What trust has measured, as reports read it: without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from fundus_seg.runs.identity import Column


@dataclass(frozen=True, eq=False)
class TrustSummary:
    """What the trust of a run or an ensemble was calibrated on.

    Attributes:
        column: the column of a table that it belongs to.
        holdout: the unseen domain.
        seed: the run's seed; 0 of an ensemble.
        networks: how many networks predict together.
        phantom: whether the photographs are the phantom's.
        domains: number of calibration cases of each training domain.
        alpha: the probability, at most, that an interval misses.
        interval_cases: the calibration cases with a known cup-to-disc ratio.
        margin: what widens the single predictions' ratios; NaN where there is none.
        lacking: why there is none; empty where there is one.
        errors: by structure, the mean absolute error of the predicted DSC on a training domain that was left out; NaN
            where nothing was fitted.
    """

    column: Column
    holdout: str
    seed: int
    networks: int
    phantom: bool
    domains: Mapping[str, int]
    alpha: float
    interval_cases: int
    margin: float
    lacking: str
    errors: Mapping[str, float]

    @property
    def text(self) -> str:
        """What it was calibrated on, and what came of it."""
        domains = ", ".join(f"{domain} {count}" for domain, count in self.domains.items())
        errors = ", ".join(
            f"{structure} {'none' if math.isnan(error) else f'{error:.3f}'}" for structure, error in self.errors.items()
        )
        interval = f"no interval: {self.lacking}" if self.lacking else f"margin {self.margin:.3f}"
        return (
            f"calibrated on {domains} (of a training domain left out, the predicted DSC errs by {errors}; vertical "
            f"cup-to-disc ratio at {100 * (1 - self.alpha):g} %, {interval})"
        )


@dataclass(frozen=True, eq=False)
class TrustedRun:
    """Trust beside the truth, on the unseen domain.

    Attributes:
        calibration: what it was calibrated on.
        cases: one row per case: domain, case, patient, `dsc_` and `predicted_dsc_` of disc and cup, vcdr, vcdr_truth,
            vcdr_low, vcdr_high, then the signals; NaN where something is not known.
        effective: effective number of calibration cases once they are weighted to resemble the unseen domain; NaN where
            there are no intervals.
        weighted: (N, 2) lower and upper ends by these weights, in the columns vcdr_low and vcdr_high.
    """

    calibration: TrustSummary
    cases: pd.DataFrame
    effective: float
    weighted: pd.DataFrame
