"""Draw a synthetic optic nerve head: the outlines of disc and cup, and the light that the eye reflects.

Coordinates are (x, y) as shares of the canvas's side, y downwards, with the temporal side on the right. The light of a
crop is drawn on a canvas of `CANVAS` x `CANVAS` pixels, half the frame's side, since no camera of the phantom resolves
more. Whole frames (`phantom.retina`) are drawn by the same functions on a canvas of their own, a `View`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fundus_seg.phantom.canvas import area, blend, clouds, colours, draw, soften
from fundus_seg.phantom.domains import Eyes

CANVAS = 400
_ANGLES = np.linspace(-np.pi, np.pi, 180, endpoint=False)


# Reflectance in red, green, blue before the camera; a case mixes the two fundi by its pigment.
_BLOND_FUNDUS, _DARK_FUNDUS, _CHOROID = colours((0.60, 0.33, 0.17), (0.40, 0.21, 0.10), (0.62, 0.26, 0.10))
_NASAL_RIM, _TEMPORAL_RIM, _CUP = colours((0.80, 0.40, 0.22), (0.80, 0.50, 0.28), (0.93, 0.72, 0.46))
_SCLERA, _CLUMPS = colours((0.76, 0.56, 0.34), (0.22, 0.13, 0.08))
(_BLOOD,) = colours((0.42, 1.30, 1.05))  # optical density of a vein: red light passes, green and blue do not


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

    def placed(self, centre: NDArray[np.float64], unit: float) -> Outline:
        """The curve of a crop on a canvas where the crop has its middle at `centre` (2,) and its side is `unit`."""
        return Outline(centre + (self.centre - 0.5) * unit, self.radii * unit)

    def mirrored(self) -> Outline:
        """The curve on the canvas with left and right exchanged."""
        turned = self.radii[(len(_ANGLES) // 2 - np.arange(len(_ANGLES))) % len(_ANGLES)]  # angle a becomes pi - a
        return Outline(np.array([1.0 - self.centre[0], self.centre[1]]), turned)


@dataclass(frozen=True)
class NerveHead:
    """The true outlines of one case. The cup may leave the disc here: drawing functions confine it first."""

    disc: Outline
    cup: Outline

    def mirrored(self) -> NerveHead:
        """The outlines on the canvas with left and right exchanged."""
        return NerveHead(self.disc.mirrored(), self.cup.mirrored())


@dataclass(frozen=True)
class View:
    """The canvas that an eye is drawn on.

    Attributes:
        side: its number of pixels.
        unit: the side of a crop around the disc, as a share of the canvas's side.
        left: where such a crop begins.
    """

    side: int = CANVAS
    unit: float = 1.0
    left: float = 0.0

    def clouds(self, rng: np.random.Generator, cells: int) -> NDArray[np.float32]:
        """A smooth random field (side, side) that varies over `1 / cells` of the side of a crop."""
        return clouds(rng, min(round(cells / self.unit), self.side), self.side)


CROP = View()


class Trunk(NamedTuple):
    """One of the great vessels where it leaves the disc.

    Attributes:
        degrees: its direction, temporal 0 and down 90.
        spread: standard deviation of that.
        bend: radians that it turns on its way; eyes differ in the share of it.
        share: its calibre, as a share of the widest.
        reach: its length, in sides of a crop.
    """

    degrees: float
    spread: float
    bend: float
    share: float
    reach: float = 1.0


_TRUNKS = (
    Trunk(-95, 18, 0.9, 1.0),
    Trunk(95, 18, -0.9, 1.0),
    Trunk(-150, 18, -0.3, 0.6),
    Trunk(150, 18, 0.3, 0.6),
    Trunk(0, 35, 0.0, 0.35),
)


def grow_nerve_head(eyes: Eyes, rng: np.random.Generator) -> NerveHead:
    """Draw the outlines of a random eye: two tilted ellipses, slightly deformed, the cup off the centre of the disc."""
    height = np.clip(rng.normal(*eyes.disc), 0.40, 0.80)
    width = height * rng.uniform(0.86, 0.98)
    disc = ellipse(0.5 + rng.normal(0.0, 0.012, 2), width, height, rng.normal(0.0, 0.12)).redrawn(rng, wobble=0.012)
    ratio = np.clip(rng.normal(*eyes.cup_to_disc), 0.28, 0.85)
    room = 0.5 * (1.0 - ratio) * np.array([width, height])
    centre = disc.centre + room * [rng.uniform(0.0, 0.5), rng.uniform(-0.25, 0.25)]
    cup = ellipse(centre, ratio * height * rng.uniform(0.85, 1.02), ratio * height, rng.normal(0.0, 0.2))
    return NerveHead(disc, cup.redrawn(rng, wobble=0.025))


def reflect(head: NerveHead, eyes: Eyes, rng: np.random.Generator) -> NDArray[np.float32]:
    """The light that the eye reflects, (3, CANVAS, CANVAS), about 0 to 1: fundus, atrophy, disc, cup, then vessels."""
    light = fundus(eyes, rng)
    if rng.random() < eyes.atrophy:
        light = atrophy(light, head.disc, rng)
    light = nerve_head(light, head, rng)
    return vessels(light, head, rng)


def nerve_head(
    light: NDArray[np.float32], head: NerveHead, rng: np.random.Generator, view: View = CROP
) -> NDArray[np.float32]:
    """Add the rim, paler on its temporal side, and the cup to the light (3, side, side)."""
    radius = float(head.disc.radii.mean())
    across = np.clip((np.linspace(0.0, 1.0, view.side, dtype=np.float32) - view.left) / view.unit, 0.0, 1.0)[None, :]
    rim = blend(_NASAL_RIM, _TEMPORAL_RIM, across) * (1.0 + 0.05 * view.clouds(rng, 7) + 0.03 * view.clouds(rng, 50))
    light = blend(light, rim, area(head.disc.points(), softness=0.035 * radius, side=view.side))
    inside = head.disc.confine(head.cup.points(), 0.94)
    cup = area(inside, softness=rng.uniform(0.05, 0.10) * radius, side=view.side)
    pallor = rng.uniform(0.75, 1.0) * (1.0 + 0.05 * view.clouds(rng, 60))
    return blend(light, _CUP, np.clip(cup * pallor, 0.0, 1.0))


def ellipse(centre: NDArray[np.float64], width: float, height: float, tilt: float) -> Outline:
    """An ellipse around a centre (2,), turned by `tilt` radians."""
    across, along = np.cos(_ANGLES - tilt) / width, np.sin(_ANGLES - tilt) / height
    return Outline(centre, 0.5 / np.hypot(across, along))


def fundus(eyes: Eyes, rng: np.random.Generator, view: View = CROP) -> NDArray[np.float32]:
    """The light (3, side, side) of the retina and of the choroid behind it."""
    pigment = np.clip(rng.normal(*eyes.pigment) + 0.12 * view.clouds(rng, 4), 0.0, 1.0)
    light = blend(_BLOND_FUNDUS, _DARK_FUNDUS, pigment)
    # The zero lines of a slow random field wind and join like choroidal vessels.
    choroid = np.exp(-np.square(view.clouds(rng, 14) / 0.35))
    light = blend(light, _CHOROID, eyes.tessellation * rng.uniform(0.5, 2.0) * choroid)
    return light * (1.0 + 0.04 * view.clouds(rng, 30) + 0.04 * view.clouds(rng, 130))


def atrophy(
    light: NDArray[np.float32], disc: Outline, rng: np.random.Generator, view: View = CROP
) -> NDArray[np.float32]:
    """Add a crescent of bare sclera on the temporal side, which fades irregularly, with pigment along its border."""
    growth = rng.uniform(1.05, 1.20)
    shift = (float(disc.radii.mean()) * rng.uniform(0.8, 1.1) * (growth - 1.0), rng.normal(0.0, 0.02) * view.unit)
    crescent = disc.redrawn(rng, scale=growth, shift=shift, wobble=0.04)
    clumps = crescent.redrawn(rng, scale=1.05, wobble=0.015)
    border = area(clumps.points(), softness=0.012 * view.unit, side=view.side)
    patches = view.clouds(rng, 9) + 0.5 * view.clouds(rng, 40)
    light = blend(light, _CLUMPS, border * np.clip(0.25 + 0.2 * patches, 0.0, 0.6))
    bare = area(crescent.points(), softness=0.010 * view.unit, side=view.side)
    return blend(light, _SCLERA, bare * np.clip(0.6 - 0.25 * patches, 0.1, 0.9))


def vessels(
    light: NDArray[np.float32],
    head: NerveHead,
    rng: np.random.Generator,
    view: View = CROP,
    *,
    trunks: Sequence[Trunk] = _TRUNKS,
    bends: tuple[float, float] = (0.2, 1.3),
) -> NDArray[np.float32]:
    """The light (3, side, side) that the vessels let through, with the reflex along their axes.

    Args:
        light: of what lies below them.
        head: of the disc that they leave.
        rng: draws them.
        view: the canvas.
        trunks: the great vessels, each of which there is a vein and an artery of.
        bends: between which shares of a trunk's bend the eyes lie.
    """
    canvas = np.zeros((view.side, view.side, 2), np.uint8)
    calibre = 0.055 * 2 * float(head.disc.radii.mean())
    hilum = head.cup.centre - [0.7 * float(head.cup.radii.mean()), 0.0]  # vessels enter at the nasal wall of the cup
    for density, streak, relative in ((1.0, 0.3, 1.0), (0.68, 1.0, 0.75)):  # veins, then the arteries that cross them
        for trunk in trunks:
            start = hilum + rng.normal(0.0, 0.25 * calibre, 2)
            heading = np.deg2rad(rng.normal(trunk.degrees, trunk.spread))
            width = calibre * relative * trunk.share * rng.uniform(0.8, 1.15)
            bend = trunk.bend * rng.uniform(*bends)
            for vessel in grow_vessels(start, heading, bend, width, trunk.reach, view.unit, rng):
                draw(canvas, vessel.ribbon(1.0), (255 * density, 0))
                draw(canvas, vessel.ribbon(0.25), (255 * density, 255 * streak))
    blood, reflex = np.moveaxis(canvas.astype(np.float32) / 255.0, -1, 0)
    return light * np.exp(-_BLOOD * soften(blood, 0.16 * calibre)) + 0.07 * soften(reflex, 0.08 * calibre)


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


def grow_vessels(
    start: NDArray[np.float64],
    heading: float,
    bend: float,
    width: float,
    reach: float,
    unit: float,
    rng: np.random.Generator,
) -> Iterator[_Vessel]:
    """A vessel, then its branches, which get thinner from fork to fork; `reach` is in units, the side of a crop."""
    along = np.linspace(0.0, 1.0, 40)
    sway = rng.uniform(0.1, 0.35) * np.sin(2 * np.pi * (rng.uniform(0.8, 2.2) * along + rng.random()))
    headings = heading + bend * along + sway - sway[0]
    steps = reach * unit / 40 * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    axis = start + np.cumsum(steps, axis=0) - steps[0]
    yield _Vessel(axis, headings, width * (1.0 - 0.35 * along))
    if width < 0.008 * unit:
        return
    for place in rng.integers(5, 32, size=2):
        turn, share = rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.7)
        yield from grow_vessels(axis[place], headings[place] + turn, -0.5 * turn, share * width, reach, unit, rng)
