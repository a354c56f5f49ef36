"""The metrics of the case records, one entry each: all that is scored, tabled, plotted and compared derives from it.

To add a metric, add an entry. Records that were written before it lack its column: their values of it are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fundus_seg import metrics
from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.protocol import NSD_TOLERANCE

if TYPE_CHECKING:
    from fundus_seg.evaluation.score_case import MaskPair

_PIXELS: Literal["px of 800"] = "px of 800"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        label: its abbreviation.
        unit: the unit of `scored_values`. `%` marks an overlap, which the records hold as a fraction and which is 0
            for an empty prediction; the other unit, pixels of an 800x800 frame, marks a distance, which an empty
            prediction leaves undefined.
        higher_is_better: the direction in which one operator beats another.
        score: computes the recorded value of a predicted and a true mask; NaN where it is undefined.
        published_as: names that published tables give it, besides its own, in lower case.
    """

    label: str
    unit: Literal["%", "px of 800"]
    higher_is_better: bool
    score: Callable[[MaskPair], float]
    published_as: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """`DSC [%]`."""
        return f"{self.label} [{self.unit}]"

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest possible value."""
        return (0.0, 100.0) if self.unit == "%" else (0.0, math.inf)


def _dice(pair: MaskPair) -> float:
    if not pair.true.any():
        return math.nan
    return metrics.dice(pair.predicted, pair.true, smooth=pair.scoring.dice_smoothing)


METRICS = {
    "dsc": Metric("DSC", "%", higher_is_better=True, score=_dice),
    "jaccard": Metric(
        "Jaccard", "%", higher_is_better=True, score=lambda pair: metrics.jaccard(pair.predicted, pair.true)
    ),
    "nsd": Metric(
        f"NSD at {NSD_TOLERANCE:g} px of 800",
        "%",
        higher_is_better=True,
        score=lambda pair: metrics.normalized_surface_dice(pair.distances, NSD_TOLERANCE),
    ),
    "hd": Metric("HD", _PIXELS, higher_is_better=False, score=lambda pair: metrics.hausdorff(pair.distances)),
    "hd95": Metric(
        "HD95",
        _PIXELS,
        higher_is_better=False,
        score=lambda pair: metrics.hausdorff95(pair.distances),
        published_as=("hd-as-printed",),  # the TVConv paper's HD is the HD95 of its released code
    ),
    "hd95_max": Metric(
        "HD95-max", _PIXELS, higher_is_better=False, score=lambda pair: metrics.hausdorff95_max(pair.distances)
    ),
    "asd": Metric(
        "ASD", _PIXELS, higher_is_better=False, score=lambda pair: metrics.average_surface_distance(pair.distances)
    ),
    "assd": Metric(
        "ASSD",
        _PIXELS,
        higher_is_better=False,
        score=lambda pair: metrics.average_symmetric_surface_distance(pair.distances),
    ),
}
"""The metrics by their columns of the case records, in the order of these."""
DEFAULT_METRICS = ("dsc", "hd", "hd95")


def overlaps() -> list[str]:
    """The metrics that are overlaps."""
    return [name for name, metric in METRICS.items() if metric.unit == "%"]


def distances() -> list[str]:
    """The metrics that are distances."""
    return [name for name, metric in METRICS.items() if metric.unit != "%"]


def check_metrics(names: Sequence[str]) -> None:
    """Raise UsageError for a name that no metric has, or that is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"metric {name} is given twice: name each once")
        if name not in METRICS:
            raise UsageError(unknown_name("metric", name, METRICS))
