"""Scores of cases by patient: two eyes of one patient are not two independent cases, and statistics resample patients.

Each case has the same weight in a mean. For a test that takes pairs for independent, a patient's cases are one pair:
their mean. With one case a patient all numbers are those without patients, to the bit.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from fundus_seg.statistics.intervals import Interval, bootstrap_interval

CASE = ["case", "patient"]


def case_scores(values: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The scores of one cell of a table, seed x case, whose columns are pairs of case and patient.

    Args:
        values: one row per seed and case: seed, case, the metric, and `patient`, without which each case is a patient.
        metric: name of the column of scores.
    """
    return with_patients(values).pivot(index="seed", columns=CASE, values=metric)


def with_patients(values: pd.DataFrame) -> pd.DataFrame:
    """The values with a column `patient`: where there is none, each case is a patient of its own."""
    return values if "patient" in values else values.assign(patient=values["case"])


def patients_interval(*scores: pd.DataFrame, **options: Any) -> Interval:
    """`bootstrap_interval` of frames as `case_scores` makes them, over their patients.

    Args:
        scores: without NaN, independent of one another: one for each unseen domain.
        options: further arguments of `bootstrap_interval`.
    """
    patients = [frame.columns.get_level_values("patient").tolist() for frame in scores]
    return bootstrap_interval(*scores, patients=patients, **options)


def patient_means(values: pd.Series) -> pd.Series:
    """The mean over each patient's cases of values whose index has a level `patient`, in the order of their first."""
    return values.groupby(level="patient", sort=False).mean()
