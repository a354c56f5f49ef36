"""Which eye a photograph shows: OD (right) or OS (left), by its name, or by the side on which the disc lies.

The disc lies nasally of the fovea, at which most whole photographs are aimed: in an upright photograph of a right eye
right of it, in one of a left eye left of it. Between the two centres are 4.76 mm (SD 0.34; Jonas et al., Optic
disc-fovea distance, axial length and parapapillary zones, PLoS ONE 10, 2015), some 2.5 diameters of a disc. A
photograph that is aimed at the disc, or that shows little of the retina, tells nothing.
"""

from __future__ import annotations

import re
from typing import Literal

from fundus_seg.data.box import Box
from fundus_seg.data.names import key

Eye = Literal["OD", "OS", ""]
"""Right eye, left eye, or not known."""

_ENDS = r"(?![^\W\d_])"
_STARTS = r"(?<![^\W\d_])"
_WORDS: dict[Eye, str] = {
    "OD": r"(?i:od|right|dext(?:er|ra)|rechts|droite?|derech[oa])|RE|R$",
    "OS": r"(?i:os|left|sinist(?:er|ra)|links|gauche|izquierd[oa])|LE|L$",
}
"""`re` and `le` count in capitals alone, and a single letter alone at the end of a name, as in `Image_01L`."""
_PATTERNS = {eye: re.compile(f"{_STARTS}(?:{words}){_ENDS}") for eye, words in _WORDS.items()}
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")

_LEAST_FIELD = 4.0
"""Height and width of a field of view that shows disc and fovea, at least, in diameters of the disc."""
_ASIDE = (1.25, 4.0)
"""How far from the middle of a field that is aimed at the fovea a disc lies, in its diameters: 2.5, and as much less as
divides it from a field that is aimed at the disc."""
_LEVEL = 1.0
"""How far above or below the middle, at most: the fields that are aimed above or below the disc lie further."""


def eye_of_name(name: str) -> Eye:
    """The eye that a photograph's name tells; nothing where it names none, or both.

    A word counts if no letter stands before or after it: `RET002OD`, `p12_left`, `leftEye`, `Image_01L`.
    """
    text = _HUMP.sub(" ", key(name))
    told: list[Eye] = [eye for eye, pattern in _PATTERNS.items() if pattern.search(text)]
    return told[0] if len(told) == 1 else ""


def eye_of_side(x: float, y: float, diameter: float, field: Box) -> Eye:
    """The eye that the disc's place tells in a photograph that is upright, not mirrored, and aimed at the fovea.

    Args:
        x: column of the disc's middle.
        y: row of it.
        diameter: of the disc, in pixels.
        field: the field of view.

    Returns:
        Nothing where the field shows too little of the retina, or is not aimed at the fovea.
    """
    aside = (x - field.x - field.width / 2) / diameter
    above = (y - field.y - field.height / 2) / diameter
    if min(field.width, field.height) < _LEAST_FIELD * diameter or abs(above) > _LEVEL:
        return ""
    least, most = _ASIDE
    if not least <= abs(aside) <= most:
        return ""
    return "OD" if aside > 0 else "OS"
