"""Our metrics beside other libraries', on shapes whose scores are known by arithmetic and on anybody's masks.

MedPy is a dependency and the reference: where neither mask is empty, we must equal it. MONAI is called only where it is
installed. Of each library the function with the metric's name is called, as its users would; `REASONS` says where that
is another metric.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fundus_seg.metrics.overlap import dice
from fundus_seg.metrics.surface import (
    average_surface_distance,
    average_symmetric_surface_distance,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    normalized_surface_dice,
    surface_distances,
)
from fundus_seg.reporting.audit_pairs import Pair
from fundus_seg.reporting.table import Report, Table

AUDITED = ("dsc", "hd", "hd95", "hd95_max", "asd", "assd", "nsd")
"""Metrics that are compared."""
NSD_TOLERANCE = 2.0
"""Tolerance of NSD in the audit, in the units of the spacing."""
AGREEMENT = {"arithmetic": 1e-6, "MedPy": 1e-6, "MONAI": 1e-3}
"""How far a source's value may be from ours and still agree; MONAI computes in single precision."""

_LIBRARIES = ("MedPy", "MONAI")

REASONS = {
    "assd of MedPy": "before 0.5 it was the mean of the two directions' means; ours and that of 0.5.2 pool both",
    "hd95 of MONAI": "the larger of the two directions' percentiles, which is hd95_max here; MedPy's and ours pool "
    "both directions before the percentile",
    "nsd of MONAI": "single precision: a distance that equals the tolerance may fall on either side of it",
    "empty prediction of MONAI": "NaN or infinite distances, which a mean leaves out or is spoilt by; here tables "
    "count the penalty",
    "empty truth of MedPy": "a Dice of 0 where there is nothing to find; here the case is excluded and counted",
    "empty truth of MONAI": "infinity or 0 where there is nothing to find; here the case is excluded and counted",
}
"""Why a library's value differs from ours: by its metric, or by what is empty."""

Scores = dict[str, float]
"""Values by metric; NaN where it is undefined or the library raises. A metric that a library lacks is missing."""


@dataclass(frozen=True)
class Comparison:
    """One metric of one pair: ours, and by source (`arithmetic`, `MedPy`, `MONAI`) what others say."""

    pair: str
    metric: str
    ours: float
    others: Mapping[str, float]
    emptiness: str

    def difference(self, source: str) -> float:
        """How far we are from another value: infinite if one alone is a number, 0 where the source says nothing."""
        other = self.others.get(source, self.ours)
        if math.isfinite(self.ours) and math.isfinite(other):
            return abs(self.ours - other)
        return 0.0 if math.isnan(self.ours) and math.isnan(other) else math.inf

    def differs(self, source: str) -> bool:
        """Whether we do not agree."""
        return self.difference(source) > AGREEMENT[source]

    @property
    def wrong(self) -> bool:
        """Whether we contradict arithmetic, or MedPy where neither mask is empty."""
        return self.differs("arithmetic") or (not self.emptiness and self.differs("MedPy"))

    def reason(self, source: str) -> str:
        """Which value differs, and why."""
        key = f"{self.emptiness or self.metric} of {source}"
        return f"{key}: {REASONS.get(key, 'unexplained, and so a fault')}"


def compare(pairs: Iterable[Pair]) -> list[Comparison]:
    """Every metric of every pair, by us, by arithmetic where it is given, by MedPy, and by MONAI if it is installed."""
    monai = _monai()
    compared = []
    for pair in pairs:
        ours = _ours(pair)
        others = {"arithmetic": pair.expected, "MedPy": _medpy(pair), **({"MONAI": monai(pair)} if monai else {})}
        compared += [
            Comparison(
                pair=pair.name,
                metric=metric,
                ours=ours[metric],
                others={source: scores[metric] for source, scores in others.items() if metric in scores},
                emptiness=pair.emptiness,
            )
            for metric in AUDITED
        ]
    return compared


def shapes_table(compared: Sequence[Comparison]) -> Report:
    """A row for each shape and metric: arithmetic, ours, each library's; `*` where it differs, and a note says why.

    The frame has the same rows: shape, metric, ours, then the value of each source, NaN where it says nothing.
    """
    libraries = _libraries(compared)
    texts = []
    rows = []
    for each in compared:
        others = {source: each.others.get(source, math.nan) for source in ("arithmetic", *libraries)}
        rows.append({"shape": each.pair, "metric": each.metric, "ours": each.ours, **others})
        own = (each.pair, each.metric, _cell(each, "arithmetic"), _number(each.ours))
        texts.append((*own, *(_cell(each, library) for library in libraries)))
    columns = ("arithmetic", "ours", *map(_versioned, libraries))
    title = "Metrics on shapes whose scores are known, distances in units of the spacing"
    layout = Table(title, ("shape", "metric"), columns, tuple(texts), _notes(compared))
    return Report(pd.DataFrame(rows), layout)


def cases_table(compared: Sequence[Comparison]) -> Report:
    """A row for each metric and library: the values that both give, the farthest apart, and how many do not agree.

    The frame has the same rows: metric, library, masks, differing, largest_difference and the pair that it is of.
    """
    rows = []
    for metric in AUDITED:
        for library in _libraries(compared):
            both = [each for each in compared if each.metric == metric and library in each.others]
            if not both:
                continue
            finite = [each for each in both if math.isfinite(each.difference(library))]
            worst = max(finite, key=lambda each: each.difference(library), default=None)
            rows.append(
                {
                    "metric": metric,
                    "library": _versioned(library),
                    "masks": len(both),
                    "differing": sum(each.differs(library) for each in both),
                    "largest_difference": worst.difference(library) if worst else math.nan,
                    "of": worst.pair if worst else None,
                }
            )
    texts = []
    for row in rows:
        largest = "" if row["of"] is None else f"{row['largest_difference']:.2g}"
        numbers = [str(row[key]) for key in ("metric", "library", "masks", "differing")]
        texts.append((*numbers, largest, str(row["of"] or "")))
    title = "Metrics on masks, distances in 800-pixel units"
    columns = ("masks", "differing", "largest difference", "of")
    layout = Table(title, ("metric", "library"), columns, tuple(texts), _notes(compared))
    return Report(pd.DataFrame(rows), layout)


def _ours(pair: Pair) -> Scores:
    distances = surface_distances(pair.pred, pair.target, spacing=pair.spacing)
    return {
        "dsc": dice(pair.pred, pair.target),
        "hd": hausdorff(distances),
        "hd95": hausdorff95(distances),
        "hd95_max": hausdorff95_max(distances),
        "asd": average_surface_distance(distances),
        "assd": average_symmetric_surface_distance(distances),
        "nsd": normalized_surface_dice(distances, NSD_TOLERANCE),
    }


def _medpy(pair: Pair) -> Scores:
    from medpy.metric import binary

    with np.errstate(invalid="ignore"):  # 0 / 0 of two empty masks
        scores = {"dsc": float(binary.dc(pair.pred, pair.target))}
    for metric in ("hd", "hd95", "asd", "assd"):
        scores[metric] = math.nan
        with contextlib.suppress(RuntimeError):  # an empty mask
            scores[metric] = float(getattr(binary, metric)(pair.pred, pair.target, voxelspacing=pair.spacing))
    return scores


def _monai() -> Callable[[Pair], Scores] | None:
    """A function that computes MONAI's scores of a pair; None if MONAI is not installed."""
    try:
        metrics = importlib.import_module("monai.metrics")
    except ImportError:
        return None
    torch = importlib.import_module("torch")  # MONAI's own arrays

    def scores(pair: Pair) -> Scores:
        masks = [torch.from_numpy(mask)[None, None].float() for mask in (pair.pred, pair.target)]
        here = {"include_background": True, "spacing": list(pair.spacing)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty masks; the table shows what comes of them
            found = {
                "dsc": metrics.compute_dice(*masks, include_background=True),
                "hd": metrics.compute_hausdorff_distance(*masks, **here),
                "hd95": metrics.compute_hausdorff_distance(*masks, percentile=95, **here),
                "asd": metrics.compute_average_surface_distance(*masks, **here),
                "assd": metrics.compute_average_surface_distance(*masks, symmetric=True, **here),
                "nsd": metrics.compute_surface_dice(*masks, class_thresholds=[NSD_TOLERANCE], **here),
            }
        found["hd95_max"] = found["hd95"]
        return {metric: float(value) for metric, value in found.items()}

    return scores


def _libraries(compared: Sequence[Comparison]) -> list[str]:
    """The libraries whose values are there."""
    asked = {source for each in compared for source in each.others}
    return [library for library in _LIBRARIES if library in asked]


def _versioned(library: str) -> str:
    return f"{library} {importlib.metadata.version(library)}"


def _cell(each: Comparison, source: str) -> str:
    if source not in each.others:
        return ""
    return _number(each.others[source]) + (" *" if each.differs(source) else "")


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _notes(compared: Sequence[Comparison]) -> tuple[str, ...]:
    wrong = [each for each in compared if each.wrong]
    others = [
        f"* {each.reason(source)}"
        for each in compared
        for source in each.others
        if source in _LIBRARIES and each.differs(source)
    ]
    if any(each.emptiness for each in compared):
        others.append("undefined: MedPy raises, MONAI and we give NaN; tables count the penalty, or exclude the case")
    faults = [f"WRONG: {each.metric} of {each.pair}, ours {each.ours:g}, {dict(each.others)}" for each in wrong]
    verdict = f"{len(wrong)} of {len(compared)} of our values contradict arithmetic or MedPy (by more than 1e-6)"
    return (*faults, *dict.fromkeys(others), f"nsd: tolerance {NSD_TOLERANCE:g}", verdict)
