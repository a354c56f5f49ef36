from .agreement import draw_bland_altman, limits_of_agreement
from .contours import draw_contours
from .overlay import draw_overlay, encode_picture, save_picture
from .panels import Panel, draw_panels

__all__ = [
    "Panel",
    "draw_bland_altman",
    "draw_contours",
    "draw_overlay",
    "draw_panels",
    "encode_picture",
    "limits_of_agreement",
    "save_picture",
]
