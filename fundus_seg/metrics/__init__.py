"""Scores of masks, from plain arrays: overlap, border distances, clinical measures, anatomical validity.

A module is imported when one of its names is first used, so that a table of metrics can name them all at no cost.
"""

from typing import TYPE_CHECKING

from fundus_seg.lazy import lazy_exports

if TYPE_CHECKING:
    from fundus_seg.metrics.anatomy import component_count, hole_count, pixels_outside
    from fundus_seg.metrics.clinical import (
        area_cup_to_disc_ratio,
        cup_to_disc_ratio,
        extents,
        horizontal_cup_to_disc_ratio,
        vertical_cup_to_disc_ratio,
    )
    from fundus_seg.metrics.overlap import dice, jaccard
    from fundus_seg.metrics.rim import IsntOrder, isnt_order, rim_profile
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
    "IsntOrder",
    "SurfaceDistances",
    "area_cup_to_disc_ratio",
    "average_surface_distance",
    "average_symmetric_surface_distance",
    "component_count",
    "cup_to_disc_ratio",
    "dice",
    "extents",
    "hausdorff",
    "hausdorff95",
    "hausdorff95_max",
    "hole_count",
    "horizontal_cup_to_disc_ratio",
    "isnt_order",
    "jaccard",
    "normalized_surface_dice",
    "pixels_outside",
    "rim_profile",
    "surface_distances",
    "vertical_cup_to_disc_ratio",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "IsntOrder": "rim",
        "SurfaceDistances": "surface",
        "area_cup_to_disc_ratio": "clinical",
        "average_surface_distance": "surface",
        "average_symmetric_surface_distance": "surface",
        "component_count": "anatomy",
        "cup_to_disc_ratio": "clinical",
        "dice": "overlap",
        "extents": "clinical",
        "hausdorff": "surface",
        "hausdorff95": "surface",
        "hausdorff95_max": "surface",
        "hole_count": "anatomy",
        "horizontal_cup_to_disc_ratio": "clinical",
        "isnt_order": "rim",
        "jaccard": "overlap",
        "normalized_surface_dice": "surface",
        "pixels_outside": "anatomy",
        "rim_profile": "rim",
        "surface_distances": "surface",
        "vertical_cup_to_disc_ratio": "clinical",
    },
)
