"""Distances between the borders of two masks, measured once, and the scores that read them.

The border of a mask is what its erosion with the 4-connected cross takes away: the pixels with a 4-neighbour outside
the mask. Beyond the frame counts as outside, so a mask that touches the frame has border pixels along it. With P the
border of the prediction, T that of the truth and pixel centres at (row, column) * spacing,

    d(p, T) = min over t in T of ||p - t||

for every p in P, and likewise d(t, P). Borders and distances are those of MedPy 0.5.2 with `connectivity=1`, which
the tests hold them against. MedPy raises on an empty mask; here every distance score is NaN, and the caller decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from fundus_seg.metrics.overlap import Mask, bounding_box, check_frames

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Nearest distances between two borders, in the units of the spacing, in no particular order.

    An empty mask has no border: its own array is then empty, and the other one, if not empty too, is infinite.
    """

    prediction_to_truth: NDArray[np.float64]
    """d(p, T) of every border pixel p of the prediction."""
    truth_to_prediction: NDArray[np.float64]
    """d(t, P) of every border pixel t of the truth."""

    @property
    def defined(self) -> bool:
        """Whether neither mask is empty."""
        return self.prediction_to_truth.size > 0 and self.truth_to_prediction.size > 0

    @property
    def pooled(self) -> NDArray[np.float64]:
        """The distances of both directions in one array."""
        return np.concatenate((self.prediction_to_truth, self.truth_to_prediction))


def check_spacing(spacing: tuple[float, float]) -> None:
    """Raise ValueError unless the spacing is the height and the width of a pixel."""
    if len(spacing) != 2 or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(f"spacing must be two finite positive numbers (row, column), got {spacing}")


def surface_distances(pred: Mask, target: Mask, *, spacing: tuple[float, float] = (1.0, 1.0)) -> SurfaceDistances:
    """Measure the nearest distances between the borders of two masks, both ways.

    Args:
        pred: (H, W) predicted mask, boolean.
        target: (H, W) true mask, boolean.
        spacing: Height and width of a pixel, in the unit that the distances shall have.

    Raises:
        ValueError: The masks differ in shape, are not boolean or not two-dimensional, or the spacing is not two
            finite positive numbers.
    """
    check_frames(pred, target)
    check_spacing(spacing)
    # Some thousand border points: a tree over them costs a tenth of a distance transform over the crop.
    found, true = _border_points(pred, spacing), _border_points(target, spacing)
    return SurfaceDistances(
        prediction_to_truth=KDTree(true).query(found)[0],
        truth_to_prediction=KDTree(found).query(true)[0],
    )


def hausdorff(d: SurfaceDistances) -> float:
    """HD, the largest distance of both directions (MedPy `hd`); NaN if a mask is empty."""
    return float(d.pooled.max()) if d.defined else math.nan


def hausdorff95(d: SurfaceDistances) -> float:
    """HD95, the 95th percentile of both directions pooled (MedPy `hd95`); NaN if a mask is empty."""
    return float(np.percentile(d.pooled, 95)) if d.defined else math.nan


def hausdorff95_max(d: SurfaceDistances) -> float:
    """HD95 of other tools, the larger of the two directions' 95th percentiles; NaN if a mask is empty."""
    directions = (d.prediction_to_truth, d.truth_to_prediction)
    return max(float(np.percentile(direction, 95)) for direction in directions) if d.defined else math.nan


def average_surface_distance(d: SurfaceDistances) -> float:
    """ASD, the mean distance from prediction to truth (MedPy `asd`), not symmetric; NaN if a mask is empty."""
    return float(d.prediction_to_truth.mean()) if d.defined else math.nan


def average_symmetric_surface_distance(d: SurfaceDistances) -> float:
    """ASSD, `(Σ d(p, T) + Σ d(t, P)) / (|P| + |T|)` (MedPy 0.5.2 `assd`); NaN if a mask is empty.

    MedPy 0.4.0 averaged the two directional means instead, which differs when the borders differ in length.
    """
    return float(d.pooled.mean()) if d.defined else math.nan


def normalized_surface_dice(d: SurfaceDistances, tolerance: float) -> float:
    """NSD, the share of the border pixels of both masks that lie within `tolerance` of the other border, in [0, 1].

    An overlap score, so a missed structure scores 0 and only an empty truth gives NaN. Pixels are counted; DeepMind's
    `surface-distance` weighs border elements by their length instead.

    Args:
        d: The distances.
        tolerance: Largest accepted distance, inclusive, in the units of the spacing.

    Raises:
        ValueError: The tolerance is negative or NaN.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    if d.truth_to_prediction.size == 0:
        return math.nan
    # The slack keeps distances that equal the tolerance up to the rounding of coordinates times spacing.
    return float(np.mean(d.pooled <= tolerance + 1e-9))


def _border_points(mask: Mask, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Centres of the border pixels, (N, 2) as (row, column) * spacing, (0, 2) of an empty mask."""
    where = bounding_box(mask)
    box = mask[where].view(np.uint8)
    if box.size == 0:
        return np.empty((0, 2))
    # Outside its bounding box the mask has no pixel, as beyond the frame: zeros are right on all four sides.
    interior = cv2.erode(box, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    columns, rows = cv2.findNonZero(box - interior).reshape(-1, 2).T
    top, left = (span.start for span in where)
    return np.column_stack(((rows + top) * spacing[0], (columns + left) * spacing[1]))
