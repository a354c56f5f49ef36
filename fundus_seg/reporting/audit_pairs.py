"""The masks that the audit scores: shapes whose scores are known by arithmetic, or those of files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fundus_seg.data.mask_files import MaskPairs
from fundus_seg.data.witness import Watch
from fundus_seg.errors import Problems
from fundus_seg.metrics.overlap import Mask
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES, spacing


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


def audit_pairs(pairs: MaskPairs, *, progress: Progress = SILENT) -> Iterator[Pair]:
    """Each structure of each case, as it is, with distances in 800-pixel units.

    Raises:
        DataError: after the last case, masks that cannot be used, all of them named.
    """
    problems = Problems()
    watch = Watch()
    with progress.task("comparing", total=len(pairs.names)) as advance:
        for name in pairs.names:
            with problems.gather():
                for structure, prediction, truth in zip(STRUCTURES, *pairs.read(name, watch), strict=True):
                    yield Pair(f"{name} {structure}", prediction, truth, spacing(*truth.shape))
            advance()
    watch.close(problems.found, "masks cannot be compared", progress)


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
