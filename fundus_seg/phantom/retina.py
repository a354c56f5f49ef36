"""Draw the retina that a whole photograph shows: disc, macula, vessels that arch from the disc, and spots like it.

Lengths are degrees of the field of view until they are drawn. The canvas is the square around a round field of view,
so its side is the field in degrees; the temporal side is on the right, as in `phantom.eye`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fundus_seg.phantom.canvas import area, blend, clouds, colours, draw, soften
from fundus_seg.phantom.domains import Eyes
from fundus_seg.phantom.eye import (
    NerveHead,
    Outline,
    Trunk,
    View,
    atrophy,
    fundus,
    grow_nerve_head,
    nerve_head,
    vessels,
)

Aim = Literal["macula", "disc", "between"]
"""What stands in the middle of the field of view; `between`: the point half-way from the disc to the macula."""

_CROP = (8.5, 12.0)
"""Degrees that the side of a crop around the disc spans: discs are then about 5 to 7.5 degrees high."""
_TO_FOVEA, _BELOW = (15.5, 0.8), (1.5, 1.2)
"""Degrees (mean, standard deviation) from the middle of the disc to the fovea, along and down."""
_WITHIN = 0.47
"""The disc's farthest point from the middle of the field, as a share of the field; the field ends at 0.5."""
_TRUNKS = (
    Trunk(-85, 12, 1.9, 1.0, 2.5),
    Trunk(85, 12, -1.9, 1.0, 2.5),
    Trunk(-128, 14, -0.3, 0.7, 2.0),
    Trunk(128, 14, 0.3, 0.7, 2.0),
    Trunk(-28, 12, 0.7, 0.3, 1.0),
    Trunk(28, 12, -0.7, 0.3, 1.0),
    Trunk(180, 25, 0.0, 0.35, 1.2),
)
_GLOW = colours((0.80, 0.42, 0.18))[0]
_XANTHOPHYLL = colours((0.5, 1.0, 1.1))[0]
_EXUDATE, _COTTON, _SCAR, _HAEMORRHAGE = colours(
    (0.93, 0.78, 0.42), (0.85, 0.72, 0.56), (0.90, 0.74, 0.54), (0.26, 0.07, 0.04)
)


@dataclass(frozen=True)
class Retina:
    """What the camera sees of an eye.

    Attributes:
        light: the light (3, side, side) that the eye reflects.
        head: the true outlines, on the same canvas.
        unit: the side of a crop around the disc, as a share of the canvas's side.
    """

    light: NDArray[np.float32]
    head: NerveHead
    unit: float


def grow_retina(
    eyes: Eyes, field: float, aim: Aim, side: int, anatomy: np.random.Generator, tissue: np.random.Generator
) -> Retina:
    """Draw a random eye.

    Args:
        eyes: the eyes of the centre.
        field: of view, in degrees.
        aim: what stands near the middle.
        side: number of pixels of the canvas.
        anatomy: draws where things lie.
        tissue: draws what they look like.
    """
    unit = anatomy.uniform(*_CROP) / field
    grown = grow_nerve_head(eyes, anatomy)
    roll = np.deg2rad(anatomy.normal(0.0, 4.0))
    along, down = anatomy.normal(*_TO_FOVEA), anatomy.normal(*_BELOW)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    to_fovea = turn @ np.array([along, down]) / field
    share = {"macula": 1.0, "disc": 0.0, "between": 0.5}[aim]
    disc = anatomy.normal(0.0, (0.5 if aim == "macula" else 2.0) / field, 2) - share * to_fovea
    farthest = _WITHIN - float(grown.disc.radii.max()) * unit
    disc *= min(1.0, farthest / max(float(np.linalg.norm(disc)), 1e-9))
    centre = 0.5 + disc
    head = NerveHead(grown.disc.placed(centre, unit), grown.cup.placed(centre, unit))
    view = View(side, unit, centre[0] - unit / 2)
    light = _macula(fundus(eyes, tissue, view), centre + to_fovea, field, tissue)
    light = _spots(light, head.disc, field, tissue)
    if tissue.random() < eyes.atrophy:
        light = atrophy(light, head.disc, tissue, view)
    light = _glow(light, head.disc, tissue, view)
    cup = area(head.disc.confine(head.cup.points(), 0.94), 0.1 * float(head.disc.radii.mean()), side)
    rim, bottom = (
        tissue.uniform(0.45, 1.0),
        tissue.uniform(0.75, 1.0),
    )  # a healthy rim may be nearly as red as the fundus
    light = light + (nerve_head(light, head, tissue, view) - light) * (rim + (bottom - rim) * cup)
    return Retina(vessels(light, head, tissue, view, trunks=_TRUNKS, bends=(0.75, 1.2)), head, unit)


def _macula(
    light: NDArray[np.float32], fovea: NDArray[np.float64], field: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Darken the macula, most in its middle."""
    y, x = np.indices(light.shape[1:], np.float32) / light.shape[-1]
    far = np.hypot(x - np.float32(fovea[0]), y - np.float32(fovea[1])) * field
    dark = rng.uniform(0.1, 0.45) * np.exp(-np.square(far / rng.uniform(2.0, 5.0)))
    dark += rng.uniform(0.0, 0.35) * np.exp(-np.square(far / rng.uniform(0.7, 1.5)))
    return light * np.exp(-_XANTHOPHYLL * dark.astype(np.float32))


def _glow(light: NDArray[np.float32], disc: Outline, rng: np.random.Generator, view: View) -> NDArray[np.float32]:
    """Brighten the surroundings of the disc, unevenly: nerve fibres, thinned pigment, the shorter way of the light."""
    radius = float(disc.radii.mean())
    y, x = np.indices(light.shape[1:], np.float32) / view.side
    off = rng.normal(0.0, 0.5 * radius, 2)
    stretch = np.exp(rng.normal(0.0, 0.2))
    far = np.hypot((x - disc.centre[0] - off[0]) * stretch, (y - disc.centre[1] - off[1]) / stretch)
    shape = np.exp(-((far / (radius * rng.uniform(1.3, 5.0))) ** rng.uniform(1.5, 4.0)))
    shape = np.asarray(shape * np.clip(1.0 + 0.3 * view.clouds(rng, 10), 0.0, 1.6), np.float32)
    light = light * (1.0 + np.float32(rng.uniform(-0.1, 0.7)) * shape)
    return blend(light, _GLOW, np.float32(rng.uniform(0.0, 0.3)) * shape)


def _spots(light: NDArray[np.float32], disc: Outline, field: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add what might be taken for a disc, and what might hide one: drusen, exudates, scars, cotton wool, bleeding."""
    side, radius = light.shape[-1], float(disc.radii.mean())

    def scatter(number: int, spread: float, size: tuple[float, float]) -> NDArray[np.float32]:
        """The share of each pixel in `number` spots of such radii, in degrees, around a place apart from the disc."""
        place = _apart(disc, 1.5 * radius + size[1] / field, rng)
        cover = np.zeros((side, side), np.float32)
        canvas = np.zeros((side, side), np.uint8)
        for centre in place + rng.normal(0.0, spread / field, (number, 2)):
            spot = replace(disc, centre=centre, radii=disc.radii / radius * rng.uniform(*size) / field)
            if np.linalg.norm(centre - disc.centre) > radius + spot.radii.max():
                draw(canvas, spot.redrawn(rng, wobble=0.15).points(), (255,))
        cover = soften(canvas.astype(np.float32) / 255.0, rng.uniform(0.05, 0.25) / field)
        return cover * (1.0 + 0.2 * clouds(rng, 30, side))

    for colour, chance, most, spread, size, strength in (
        (_EXUDATE, 0.20, 60, 4.0, (0.06, 0.30), (0.4, 0.9)),  # drusen, hard exudates
        (_EXUDATE, 0.12, 4, 1.5, (0.4, 1.6), (0.4, 0.9)),  # a plaque of exudate
        (_COTTON, 0.12, 6, 8.0, (0.5, 1.4), (0.2, 0.6)),
        (_SCAR, 0.12, 3, 6.0, (0.6, 3.0), (0.3, 0.9)),  # bare sclera in a scar, as bright and as large as a disc
        (_HAEMORRHAGE, 0.20, 12, 7.0, (0.2, 1.6), (0.4, 0.8)),
    ):
        if rng.random() < chance:
            cover = scatter(int(rng.integers(1, most + 1)), spread, size)
            light = blend(light, colour, np.clip(cover * rng.uniform(*strength), 0.0, 1.0))
    return light


def _apart(disc: Outline, distance: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random place in the field of view, at least so far from the disc's middle, where there is one."""
    places = 0.5 + 0.45 * rng.uniform(-1.0, 1.0, (20, 2))
    far = np.linalg.norm(places - disc.centre, axis=1)
    sound = (np.linalg.norm(places - 0.5, axis=1) < 0.45) & (far > distance)
    return places[int(np.argmax(sound))] if sound.any() else places[int(np.argmax(far))]
