"""Draw a synthetic optic nerve head: the outlines of disc and cup, and the light that the eye reflects.

Coordinates are (x, y) as shares of the frame's side, y downwards, with the temporal side on the right. The light is
drawn on a canvas of `CANVAS` x `CANVAS` pixels, half the frame's side, since no camera of the phantom resolves more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.phantom.domains import Eyes

CANVAS = 400
_SUBPIXEL_BITS = 4  # OpenCV takes fixed-point coordinates
_ANGLES = np.linspace(-np.pi, np.pi, 180, endpoint=False)


def _colours(*rgb: tuple[float, float, float]) -> NDArray[np.float32]:
    """Colours (n, 3, 1, 1); each broadcasts over a canvas (3, CANVAS, CANVAS)."""
    return np.array(rgb, np.float32)[..., None, None]


# Reflectance in red, green, blue before the camera; a case mixes the two fundi by its pigment.
_BLOND_FUNDUS, _DARK_FUNDUS, _CHOROID = _colours((0.60, 0.33, 0.17), (0.40, 0.21, 0.10), (0.62, 0.26, 0.10))
_NASAL_RIM, _TEMPORAL_RIM, _CUP = _colours((0.80, 0.40, 0.22), (0.80, 0.50, 0.28), (0.93, 0.72, 0.46))
_SCLERA, _CLUMPS = _colours((0.76, 0.56, 0.34), (0.22, 0.13, 0.08))
(_BLOOD,) = _colours((0.42, 1.30, 1.05))  # optical density of a vein: red light passes, green and blue do not

# The great vessels: direction in degrees (temporal 0, down 90), its spread, bend on the way, share of the calibre.
_TRUNKS = ((-95, 18, 0.9, 1.0), (95, 18, -0.9, 1.0), (-150, 18, -0.3, 0.6), (150, 18, 0.3, 0.6), (0, 35, 0.0, 0.35))


@dataclass(frozen=True)
class Outline:
    """A closed curve: its `centre` (2,), and its distances from the centre, `radii` (180,), in even directions."""

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]

    def points(self) -> NDArray[np.float64]:
        """The curve as a polygon, (180, 2)."""
        return self.centre + self.radii[:, None] * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)

    def redrawn(
        self,
        rng: np.random.Generator,
        *,
        scale: float = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
        wobble: float = 0.0,
    ) -> Outline:
        """The curve, scaled about its centre, shifted, and deformed by slow waves of relative amplitude `wobble`."""
        turns = np.arange(2, 7)  # waves around the curve; a single one would only shift it
        amplitudes, phases = wobble * rng.standard_normal(5) / (turns - 1), rng.uniform(0.0, 2 * np.pi, 5)
        waves = amplitudes @ np.cos(turns[:, None] * _ANGLES + phases[:, None])
        return Outline(self.centre + shift, self.radii * scale * (1.0 + waves))

    def confine(self, points: NDArray[np.float64], share: float) -> NDArray[np.float64]:
        """Pull `points` (n, 2) towards the centre where they exceed `share` of the curve's distance from it."""
        offset = points - self.centre
        limit = share * np.interp(np.arctan2(offset[:, 1], offset[:, 0]), _ANGLES, self.radii, period=2 * np.pi)
        return self.centre + offset * np.minimum(1.0, limit / np.linalg.norm(offset, axis=1))[:, None]


@dataclass(frozen=True)
class NerveHead:
    """The true outlines of one case. The cup may leave the disc here: drawing functions confine it first."""

    disc: Outline
    cup: Outline


def grow_nerve_head(eyes: Eyes, rng: np.random.Generator) -> NerveHead:
    """Draw the outlines of a random eye: two tilted ellipses, slightly deformed, the cup off the centre of the disc."""
    height = np.clip(rng.normal(*eyes.disc), 0.40, 0.80)
    width = height * rng.uniform(0.86, 0.98)
    disc = _ellipse(0.5 + rng.normal(0.0, 0.012, 2), width, height, rng.normal(0.0, 0.12)).redrawn(rng, wobble=0.012)
    ratio = np.clip(rng.normal(*eyes.cup_to_disc), 0.28, 0.85)
    room = 0.5 * (1.0 - ratio) * np.array([width, height])
    centre = disc.centre + room * [rng.uniform(0.0, 0.5), rng.uniform(-0.25, 0.25)]
    cup = _ellipse(centre, ratio * height * rng.uniform(0.85, 1.02), ratio * height, rng.normal(0.0, 0.2))
    return NerveHead(disc, cup.redrawn(rng, wobble=0.025))


def reflect(head: NerveHead, eyes: Eyes, rng: np.random.Generator) -> NDArray[np.float32]:
    """The light that the eye reflects, (3, CANVAS, CANVAS), about 0 to 1: fundus, atrophy, disc, cup, then vessels."""
    light = _fundus(eyes, rng)
    if rng.random() < eyes.atrophy:
        light = _atrophy(light, head.disc, rng)
    radius = float(head.disc.radii.mean())
    across = np.linspace(0.0, 1.0, CANVAS, dtype=np.float32)[None, :]
    rim = _blend(_NASAL_RIM, _TEMPORAL_RIM, across) * (1.0 + 0.05 * clouds(rng, 7) + 0.03 * clouds(rng, 50))
    light = _blend(light, rim, _area(head.disc.points(), softness=0.035 * radius))
    cup = _area(head.disc.confine(head.cup.points(), 0.94), softness=rng.uniform(0.05, 0.10) * radius)
    pallor = rng.uniform(0.75, 1.0) * (1.0 + 0.05 * clouds(rng, 60))
    light = _blend(light, _CUP, np.clip(cup * pallor, 0.0, 1.0))
    blood, reflex = _vessels(head, rng)
    return light * np.exp(-_BLOOD * blood) + 0.07 * reflex


def draw(
    canvas: NDArray[np.uint8], polygon: NDArray[np.float64], colour: Sequence[float], *, smooth: bool = True
) -> None:
    """Fill a polygon (n, 2), in shares of the frame, on a square canvas; `smooth` antialiases its edge."""
    pixels = polygon * len(canvas) - 0.5  # for OpenCV, whole numbers are the centres of pixels
    fixed_point = np.round(pixels * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [fixed_point], colour, cv2.LINE_AA if smooth else cv2.LINE_8, _SUBPIXEL_BITS)


def clouds(rng: np.random.Generator, cells: int) -> NDArray[np.float32]:
    """A smooth random field (CANVAS, CANVAS), mean 0 and variance near 1, that varies over `1 / cells` of the frame."""
    grid = rng.standard_normal((cells, cells), np.float32)
    return np.asarray(cv2.resize(grid, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC), np.float32)


def _ellipse(centre: NDArray[np.float64], width: float, height: float, tilt: float) -> Outline:
    across, along = np.cos(_ANGLES - tilt) / width, np.sin(_ANGLES - tilt) / height
    return Outline(centre, 0.5 / np.hypot(across, along))


def _fundus(eyes: Eyes, rng: np.random.Generator) -> NDArray[np.float32]:
    pigment = np.clip(rng.normal(*eyes.pigment) + 0.12 * clouds(rng, 4), 0.0, 1.0)
    light = _blend(_BLOND_FUNDUS, _DARK_FUNDUS, pigment)
    # The zero lines of a slow random field wind and join like choroidal vessels.
    choroid = np.exp(-np.square(clouds(rng, 14) / 0.35))
    light = _blend(light, _CHOROID, eyes.tessellation * rng.uniform(0.5, 2.0) * choroid)
    return light * (1.0 + 0.04 * clouds(rng, 30) + 0.04 * clouds(rng, 130))


def _atrophy(light: NDArray[np.float32], disc: Outline, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add a crescent of bare sclera on the temporal side, which fades irregularly, with pigment along its border."""
    growth = rng.uniform(1.05, 1.20)
    shift = (float(disc.radii.mean()) * rng.uniform(0.8, 1.1) * (growth - 1.0), rng.normal(0.0, 0.02))
    crescent = disc.redrawn(rng, scale=growth, shift=shift, wobble=0.04)
    border = _area(crescent.redrawn(rng, scale=1.05, wobble=0.015).points(), softness=0.012)
    patches = clouds(rng, 9) + 0.5 * clouds(rng, 40)
    light = _blend(light, _CLUMPS, border * np.clip(0.25 + 0.2 * patches, 0.0, 0.6))
    return _blend(light, _SCLERA, _area(crescent.points(), softness=0.010) * np.clip(0.6 - 0.25 * patches, 0.1, 0.9))


def _vessels(head: NerveHead, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Optical density of the blood (1 in a vein), and the reflex along the vessels' axes: (CANVAS, CANVAS) each."""
    canvas = np.zeros((CANVAS, CANVAS, 2), np.uint8)
    calibre = 0.055 * 2 * float(head.disc.radii.mean())
    hilum = head.cup.centre - [0.7 * float(head.cup.radii.mean()), 0.0]  # vessels enter at the nasal wall of the cup
    for density, streak, relative in ((1.0, 0.3, 1.0), (0.68, 1.0, 0.75)):  # veins, then the arteries that cross them
        for degrees, spread, bend, share in _TRUNKS:
            start = hilum + rng.normal(0.0, 0.25 * calibre, 2)
            heading = np.deg2rad(rng.normal(degrees, spread))
            width = calibre * relative * share * rng.uniform(0.8, 1.15)
            for vessel in _grow_vessels(start, heading, bend * rng.uniform(0.2, 1.3), width, rng):
                draw(canvas, vessel.ribbon(1.0), (255 * density, 0))
                draw(canvas, vessel.ribbon(0.25), (255 * density, 255 * streak))
    blood, reflex = np.moveaxis(canvas.astype(np.float32) / 255.0, -1, 0)
    return _soften(blood, 0.16 * calibre), _soften(reflex, 0.08 * calibre)


@dataclass(frozen=True)
class _Vessel:
    axis: NDArray[np.float64]  # (n, 2)
    headings: NDArray[np.float64]  # (n,) radians
    widths: NDArray[np.float64]  # (n,)

    def ribbon(self, share: float) -> NDArray[np.float64]:
        """The polygon (2n, 2) that covers the inner `share` of the vessel."""
        normals = np.stack([-np.sin(self.headings), np.cos(self.headings)], axis=1)
        side = 0.5 * share * self.widths[:, None] * normals
        return np.concatenate([self.axis + side, (self.axis - side)[::-1]])


def _grow_vessels(
    start: NDArray[np.float64], heading: float, bend: float, width: float, rng: np.random.Generator
) -> Iterator[_Vessel]:
    """A vessel, then its branches, which get thinner from fork to fork."""
    along = np.linspace(0.0, 1.0, 40)
    sway = rng.uniform(0.1, 0.35) * np.sin(2 * np.pi * (rng.uniform(0.8, 2.2) * along + rng.random()))
    headings = heading + bend * along + sway - sway[0]
    steps = 0.025 * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    axis = start + np.cumsum(steps, axis=0) - steps[0]
    yield _Vessel(axis, headings, width * (1.0 - 0.35 * along))
    if width < 0.008:
        return
    for place in rng.integers(5, 32, size=2):
        turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 0.8)
        yield from _grow_vessels(axis[place], headings[place] + turn, -0.5 * turn, rng.uniform(0.4, 0.7) * width, rng)


def _area(outline: NDArray[np.float64], softness: float) -> NDArray[np.float32]:
    """The share of each canvas pixel inside a polygon, its edge blurred by `softness`, a share of the frame."""
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    draw(canvas, outline, (255,))
    return _soften(canvas.astype(np.float32) / 255.0, softness)


def _blend(below: NDArray[np.float32], above: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix two colours, (3, 1, 1) or (3, CANVAS, CANVAS), by the `share` (CANVAS, CANVAS) of the upper one."""
    return below + (above - below) * share


def _soften(field: NDArray[np.float32], softness: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), softness * CANVAS), np.float32)
