"""Scores of masks, from plain arrays: overlap, border distances, clinical ratios."""

from fundus_seg.metrics.clinical import vertical_cup_to_disc_ratio
from fundus_seg.metrics.overlap import dice, jaccard
from fundus_seg.metrics.surface import (
    SurfaceDistances,
    average_surface_distance,
    average_symmetric_surface_distance,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    normalized_surface_dice,
    surface_distances,
)

__all__ = [
    "SurfaceDistances",
    "average_surface_distance",
    "average_symmetric_surface_distance",
    "dice",
    "hausdorff",
    "hausdorff95",
    "hausdorff95_max",
    "jaccard",
    "normalized_surface_dice",
    "surface_distances",
    "vertical_cup_to_disc_ratio",
]
