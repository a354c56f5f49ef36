"""What the metrics of the case records are called, measured in, and which way is better: for tables, plots, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.protocol import NSD_TOLERANCE


@dataclass(frozen=True)
class Metric:
    """One metric as it is shown.

    Attributes:
        label: its abbreviation.
        unit: of `scored_values`: percent for what the records hold as a fraction, else pixels of an 800x800 frame.
        higher_is_better: the direction in which one operator beats another.
    """

    label: str
    unit: Literal["%", "px of 800"]
    higher_is_better: bool

    @property
    def heading(self) -> str:
        """`DSC [%]`."""
        return f"{self.label} [{self.unit}]"


METRICS = {
    "dsc": Metric("DSC", "%", higher_is_better=True),
    "jaccard": Metric("Jaccard", "%", higher_is_better=True),
    "nsd": Metric(f"NSD at {NSD_TOLERANCE:g} px of 800", "%", higher_is_better=True),
    "hd": Metric("HD", "px of 800", higher_is_better=False),
    "hd95": Metric("HD95", "px of 800", higher_is_better=False),
    "hd95_max": Metric("HD95-max", "px of 800", higher_is_better=False),
    "asd": Metric("ASD", "px of 800", higher_is_better=False),
    "assd": Metric("ASSD", "px of 800", higher_is_better=False),
}
"""By column of the case records."""
DEFAULT_METRICS = ("dsc", "hd", "hd95")


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise UsageError for a metric that no record has."""
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(unknown_name("metric", metric, METRICS))
