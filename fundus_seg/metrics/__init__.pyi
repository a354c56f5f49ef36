from .anatomy import component_count, hole_count, pixels_outside
from .clinical import (
    area_cup_to_disc_ratio,
    cup_to_disc_ratio,
    extents,
    horizontal_cup_to_disc_ratio,
    vertical_cup_to_disc_ratio,
)
from .overlap import dice, jaccard
from .pairwise import mean_pairwise_iou
from .rim import IsntOrder, isnt_order, rim_profile
from .surface import (
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
    "mean_pairwise_iou",
    "normalized_surface_dice",
    "pixels_outside",
    "rim_profile",
    "surface_distances",
    "vertical_cup_to_disc_ratio",
]
