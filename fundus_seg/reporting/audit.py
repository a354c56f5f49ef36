"""Our metrics beside other libraries', on shapes whose scores are known by arithmetic and on anybody's masks.

MedPy is a dependency and the reference: where both masks hold something, we must equal it. MONAI is asked only where it
is installed. Each is asked for what it calls by the metric's name, as its users would; `REASONS` says where that is
something else.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fundus_seg.data.mask_files import MaskPairs
from fundus_seg.errors import Problems
from fundus_seg.metrics.overlap import Mask, dice
from fundus_seg.metrics.surface import (
    average_surface_distance,
    average_symmetric_surface_distance,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    normalized_surface_dice,
    surface_distances,
)
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES, spacing
from fundus_seg.reporting.table import Table

METRICS = ("dsc", "hd", "hd95", "hd95_max", "asd", "assd", "nsd")
NSD_TOLERANCE = 2.0
"""Of nsd, in the units of the spacing; of the audit alone."""
AGREEMENT = {"arithmetic": 1e-6, "MedPy": 1e-6, "MONAI": 1e-3}
"""How far another value may be from ours and agree; MONAI computes in single precision."""

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
"""Why a library's value is another than ours: by its metric, or by what is empty."""

Scores = dict[str, float]
"""By metric; NaN: undefined, or the library raises. A metric that a library lacks is missing."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks (H, W) bool of one shape or case, the spacing, and the scores that arithmetic gives."""

    name: str
    pred: Mask
    target: Mask
    spacing: tuple[float, float] = (1.0, 1.0)
    expected: Mapping[str, float] = field(default_factory=dict)

    @property
    def emptiness(self) -> str:
        """`empty truth`, `empty prediction`, or nothing."""
        if not self.target.any():
            return "empty truth"
        return "" if self.pred.any() else "empty prediction"


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
        """Whose value differs, and why."""
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
            for metric in METRICS
        ]
    return compared


def shapes_table(compared: Sequence[Comparison]) -> Table:
    """A row for each shape and metric: arithmetic, ours, each library's; `*` where it differs, and a note says why."""
    sources = ("arithmetic", *_libraries(compared))
    rows = []
    for each in compared:
        cells = [_cell(each, source) for source in sources]
        rows.append((each.pair, each.metric, cells[0], _number(each.ours), *cells[1:]))
    columns = ("arithmetic", "ours", *map(_versioned, sources[1:]))
    title = "Metrics on shapes whose scores are known, distances in units of the spacing"
    return Table(title, ("shape", "metric"), columns, tuple(rows), _notes(compared))


def cases_table(compared: Sequence[Comparison]) -> Table:
    """A row for each metric and library: the values that both give, the farthest apart, and how many do not agree."""
    rows = []
    for metric in METRICS:
        for library in _libraries(compared):
            both = [each for each in compared if each.metric == metric and library in each.others]
            if not both:
                continue
            finite = [each for each in both if math.isfinite(each.difference(library))]
            worst = max(finite, key=lambda each: each.difference(library), default=None)
            farthest = ("", "") if worst is None else (f"{worst.difference(library):.2g}", worst.pair)
            differing = sum(each.differs(library) for each in both)
            rows.append((metric, _versioned(library), str(len(both)), str(differing), *farthest))
    columns = ("masks", "differing", "largest difference", "of")
    return Table(
        "Metrics on masks, distances in 800-pixel units", ("metric", "library"), columns, tuple(rows), _notes(compared)
    )


def shapes() -> list[Pair]:
    """Pairs of masks with the scores that pencil and paper give; every count is of border pixels."""
    empty, square = _box(20, 20), _box(20, 20, rows=(5, 15), columns=(2, 12))
    right = _box(20, 20, rows=(5, 15), columns=(5, 15))
    # Squares of 10, three columns apart. Of the 36 pixels the side away from the other is 3 from it, the side within it
    # 1, 2, 3, 3, 3, 3, 2, 1 from top and bottom, and three pixels at each end of these 3, 2 and 1: 24 + 18 + 12.
    apart = {"dsc": 0.7, "hd": 3, "hd95": 3, "hd95_max": 3, "asd": 54 / 36, "assd": 54 / 36, "nsd": 22 / 36}
    # Spacing 2 by 0.5: the side within is now nearest to the side 3 columns = 1.5 away: 8 · 1.5 twice, and 2 · 3.
    flat = {"dsc": 0.7, "hd": 1.5, "hd95": 1.5, "hd95_max": 1.5, "asd": 30 / 36, "assd": 30 / 36, "nsd": 1}
    # A square of 21 (80 pixels) around one of 11 (40 pixels): from the inner one 5 everywhere; from the outer one 5 to
    # the 44 pixels beside it, then sqrt(25 + k²) for k = 1 .. 4 eight times each, and k = 5 at the four corners.
    oblique = [math.sqrt(25 + k * k) for k in range(1, 6)]
    outward = 44 * 5 + 8 * sum(oblique[:4]) + 4 * oblique[4]
    nested = {
        "dsc": 2 * 121 / (441 + 121),
        "hd": oblique[4],
        "hd95": oblique[3],  # number 113.05 of 0 .. 119, between two of the eight
        "hd95_max": 0.95 * oblique[3] + 0.05 * oblique[4],  # number 75.05 of 0 .. 79; the corners are 76 .. 79
        "asd": outward / 80,
        "assd": (outward + 40 * 5) / 120,
        "nsd": 0,
    }
    # A line of 21 pixels over one of 11: ten pixels stick out by 1 .. 10.
    line = {
        "dsc": 22 / 32,
        "hd": 10,
        "hd95": 8.45,  # number 29.45 of 0 .. 31
        "hd95_max": 9,  # number 19 of 0 .. 20
        "asd": 55 / 21,
        "assd": 55 / 32,
        "nsd": 24 / 32,
    }
    # Ten and eight columns of a whole frame of 20 rows: beyond the frame is outside, so 56 and 52 pixels. From ten to
    # eight 20 · 2 and 2 · 1; from eight to ten 16 · 2 and 2 · 1, the corners being on the other border.
    frame = {"dsc": 320 / 360, "hd": 2, "hd95": 2, "hd95_max": 2, "asd": 42 / 56, "assd": 76 / 108, "nsd": 1}
    five = {"dsc": 0, "hd": 5, "hd95": 5, "hd95_max": 5, "asd": 5, "assd": 5, "nsd": 0}
    oblong = dict.fromkeys(("hd", "hd95", "hd95_max", "asd", "assd"), math.hypot(3 * 2, 4 * 0.5))
    undefined = dict.fromkeys(("hd", "hd95", "hd95_max", "asd", "assd"), math.nan)
    same = {"dsc": 1, "hd": 0, "hd95": 0, "hd95_max": 0, "asd": 0, "assd": 0, "nsd": 1}
    first, second = _box(20, 20, rows=(4, 5), columns=(4, 5)), _box(20, 20, rows=(7, 8), columns=(8, 9))
    ring = _disc(81, 30) & ~_disc(81, 20)
    return [
        Pair("discs, 7 apart", _disc(81, 20), np.roll(_disc(81, 20), 7, axis=1), expected={"hd": 7}),
        Pair("nested discs", _disc(81, 30), _disc(81, 20)),
        Pair("a disc's ring", ring, _disc(81, 30)),
        Pair("squares, 3 apart", square, right, expected=apart),
        Pair("squares, spacing 2 x 0.5", square, right, (2.0, 0.5), flat),
        Pair("nested squares", _box(31, 31, (5, 26), (5, 26)), _box(31, 31, (10, 21), (10, 21)), expected=nested),
        Pair("single pixels", first, second, expected=five),
        Pair("single pixels, spacing 2 x 0.5", first, second, (2.0, 0.5), {"dsc": 0, **oblong, "nsd": 0}),
        Pair("thin lines", _box(9, 30, (4, 5), (2, 23)), _box(9, 30, (4, 5), (2, 13)), expected=line),
        Pair("touching the frame", _box(20, 20, (0, 20), (0, 10)), _box(20, 20, (0, 20), (0, 8)), expected=frame),
        Pair("the same mask", square, square, expected=same),
        Pair("empty prediction", empty, square, expected={"dsc": 0, **undefined, "nsd": 0}),
        Pair("empty truth", square, empty, expected={"dsc": math.nan, **undefined, "nsd": math.nan}),
        Pair("both empty", empty, empty, expected={"dsc": math.nan, **undefined, "nsd": math.nan}),
    ]


def _box(height: int, width: int, rows: tuple[int, int] = (0, 0), columns: tuple[int, int] = (0, 0)) -> Mask:
    mask = np.zeros((height, width), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def _disc(size: int, radius: int) -> Mask:
    rows, columns = np.mgrid[:size, :size] - size // 2
    return np.asarray(rows**2 + columns**2 <= radius**2)


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
    """What asks MONAI, if it is installed."""
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
    """Those that were asked."""
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


def audit_pairs(pairs: MaskPairs, *, progress: Progress = SILENT) -> Iterator[Pair]:
    """Each structure of each case, as it is, with distances in 800-pixel units.

    Raises:
        DataError: after the last case, masks that cannot be used, all of them named.
    """
    problems = Problems()
    with progress.task("comparing", total=len(pairs.names)) as advance:
        for name in pairs.names:
            with problems.gather():
                for structure, prediction, truth in zip(STRUCTURES, *pairs.read(name), strict=True):
                    yield Pair(f"{name} {structure}", prediction, truth, spacing(*truth.shape))
            advance()
    problems.refuse("masks cannot be compared")
