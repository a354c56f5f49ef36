"""The light of varied eyes: what real discs show beside the plain ones of `phantom.eye`, each in random measure.

A cup shows by colour, by the shadow of its wall or by the bend of its vessels, and often by none of them where the
trunk of the vessels enters: readers draw it on beneath. What lies around the disc may be as bright as the disc.

Coordinates are those of `phantom.eye`: shares of the canvas's side, y downwards, the temporal side on the right. A
field is (CANVAS, CANVAS); light is (3, CANVAS, CANVAS), about 0 to 1.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.phantom.canvas import area, blend, clouds, colours, draw, soften
from fundus_seg.phantom.domains import Eyes
from fundus_seg.phantom.eye import CANVAS, NerveHead, Outline, fundus, grow_vessels

_Field = NDArray[np.float32]
_Rng = np.random.Generator

_Y, _X = (np.indices((CANVAS, CANVAS), np.float32) + 0.5) / CANVAS
_RIM, _PALE, _SCLERA, _PIGMENT, _BLED = colours(
    (0.80, 0.44, 0.24), (0.95, 0.78, 0.52), (0.86, 0.70, 0.46), (0.22, 0.12, 0.07), (0.34, 0.07, 0.05)
)


def varied_light(head: NerveHead, rng: _Rng) -> _Field:
    """The light (3, CANVAS, CANVAS) that an eye with these outlines reflects."""
    eyes = Eyes((0, 0), (0, 0), (rng.uniform(0.0, 1.0), 0.1), rng.choice([0.05, 0.15, 0.5]), 0.0)
    light = _fibres(fundus(eyes, rng), head.disc, rng)
    light = _glow(light, head.disc, rng)
    if rng.random() < 0.55:
        light = _atrophy(light, head.disc, rng)
    if rng.random() < 0.25:
        light = _ring(light, head.disc, rng)
    depth = area(_cup_points(head), rng.uniform(0.03, 0.30) * _radius(head.cup), CANVAS)
    light = _cup(_rim(light, head.disc, rng), head, depth, rng)
    light = _vessels(light, head, depth, rng)
    if rng.random() < 0.10:
        light = _haemorrhage(light, head.disc, rng)
    return light


def _radius(outline: Outline) -> float:
    return float(outline.radii.mean())


def _cup_points(head: NerveHead) -> NDArray[np.float64]:
    return head.disc.confine(head.cup.points(), 0.97)


def _along(outline: Outline, degrees: float) -> _Field:
    """How far each pixel lies from an outline's centre in a direction, temporal 0 and down 90; 1 is the mean radius."""
    turn = np.deg2rad(degrees)
    x, y = outline.centre
    far = (_X - np.float32(x)) * np.cos(turn) + (_Y - np.float32(y)) * np.sin(turn)
    return np.asarray(far / _radius(outline), np.float32)


def _rise(field: _Field, middle: float, width: float) -> _Field:
    """From 0 to 1 where a field passes `middle`, over about 4 times `width`."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip((field - middle) / width, -30.0, 30.0))), np.float32)


def _polar(outline: Outline) -> tuple[_Field, _Field]:
    """Direction in radians, and distance in mean radii, of each pixel from an outline's centre."""
    x, y = (np.float32(each) for each in outline.centre)
    return np.arctan2(_Y - y, _X - x), np.hypot(_X - x, _Y - y) / np.float32(_radius(outline))


def _fibres(light: _Field, disc: Outline, rng: _Rng) -> _Field:
    """Nerve fibres: fine bright streaks away from the disc, most above and below it."""
    angle, far = _polar(disc)
    streaks = clouds(rng, 90, 360)[(np.rad2deg(angle) % 360).astype(int) % 360, np.minimum(60 * far, 359).astype(int)]
    where = np.abs(np.sin(angle)) * np.exp(-far / rng.uniform(1.0, 4.0))
    return light * (1.0 + rng.uniform(0.0, 0.25) * where * (0.5 + 0.5 * soften(streaks, 0.004)))


def _glow(light: _Field, disc: Outline, rng: _Rng) -> _Field:
    """The surroundings of the disc, brighter or darker than the rest, with no border."""
    off = disc.centre + rng.normal(0.0, 0.5 * _radius(disc), 2)
    far = _polar(Outline(off, disc.radii))[1]
    shape = np.exp(-((far / rng.uniform(1.2, 3.0)) ** rng.uniform(1.5, 4.0)))
    return light * (1.0 + rng.uniform(-0.25, 0.7) * shape)


def _atrophy(light: _Field, disc: Outline, rng: _Rng) -> _Field:
    """Bare sclera or thinned pigment beside the disc, in any direction though most often temporal, with its clumps."""
    growth = 1.0 + rng.choice([0.12, 0.25, 0.6]) * rng.uniform(0.4, 1.2)
    turn = np.deg2rad(rng.normal(0.0, 50.0))
    shift = _radius(disc) * rng.uniform(0.2, 1.1) * (growth - 1.0) * np.array([np.cos(turn), np.sin(turn)])
    zone = disc.redrawn(rng, scale=growth, shift=(shift[0], shift[1]), wobble=0.06)
    patches = clouds(rng, 9, CANVAS) + 0.6 * clouds(rng, 35, CANVAS)
    choroid = np.exp(-np.square(clouds(rng, 16, CANVAS) / 0.5))
    clumps = area(zone.redrawn(rng, scale=rng.uniform(1.02, 1.12), wobble=0.02).points(), 0.012, CANVAS)
    light = blend(light, _PIGMENT, clumps * np.clip(rng.uniform(-0.2, 0.5) + 0.2 * patches, 0.0, 0.7))
    bare = area(zone.points(), rng.uniform(0.004, 0.035), CANVAS) * np.clip(
        rng.uniform(0.1, 0.95) - rng.uniform(0.0, 0.3) * patches - rng.uniform(0.0, 0.5) * choroid, 0.0, 0.95
    )
    return blend(light, _SCLERA * np.float32(rng.uniform(0.6, 1.15)), bare)


def _ring(light: _Field, disc: Outline, rng: _Rng) -> _Field:
    """The scleral ring, a narrow bright band just outside the disc."""
    band = area(disc.redrawn(rng, scale=rng.uniform(1.02, 1.08), wobble=0.008).points(), 0.006, CANVAS)
    return blend(light, _SCLERA, band * np.float32(rng.uniform(0.1, 0.6)))


def _rim(light: _Field, disc: Outline, rng: _Rng) -> _Field:
    """The disc without its cup: pink to pale, nearly as red as the fundus in some eyes, paler on the temporal side."""
    around = np.median(light, axis=(1, 2), keepdims=True)
    own = blend(_RIM, around * np.float32(rng.uniform(1.1, 1.7)), np.asarray(rng.uniform(0.0, 0.8), np.float32))
    own = own * np.float32(rng.uniform(0.8, 1.15)) * rng.normal(1.0, 0.05, (3, 1, 1)).astype(np.float32)
    pallor = rng.choice([0.05, 0.2, 0.6]) * rng.random() + rng.uniform(0.0, 0.4) * _rise(
        _along(disc, rng.normal(0.0, 25.0)), rng.uniform(-0.3, 0.7), rng.uniform(0.1, 0.4)
    )
    own = blend(own, _PALE, np.asarray(np.clip(pallor, 0.0, 0.9), np.float32))
    own = own * (1.0 + 0.04 * clouds(rng, 7, CANVAS) + rng.uniform(0.0, 0.04) * clouds(rng, 50, CANVAS))
    edges = [rng.uniform(0.015, 0.05), rng.uniform(0.03, 0.14)]
    sharp, soft = (area(disc.points(), edge * _radius(disc), CANVAS) for edge in edges)
    return blend(light, own, sharp + (soft - sharp) * _rise(-_along(disc, rng.normal(0.0, 40.0)), 0.0, 0.3))


def _cup(light: _Field, head: NerveHead, depth: _Field, rng: _Rng) -> _Field:
    """The cup: pale on the side away from the vessels, all of it or its bottom alone; and the shadow of its wall."""
    radius = _radius(head.cup)
    bottom = head.cup.redrawn(rng, scale=rng.choice([1.0, 1.0, rng.uniform(0.6, 0.95)]), wobble=0.03)
    pale = area(head.disc.confine(bottom.points(), 0.97), rng.uniform(0.04, 0.40) * radius, CANVAS)
    side = _rise(_along(head.cup, rng.normal(0.0, 30.0)), rng.uniform(-1.6, 0.3), rng.uniform(0.05, 0.4))
    least = np.float32(rng.choice([0.0, 0.2, 0.6]))
    share = np.clip(rng.uniform(0.3, 1.0) * pale * (least + (1.0 - least) * side), 0.0, 1.0)
    light = blend(light, _PALE * np.float32(rng.uniform(0.85, 1.15)), share)
    if rng.random() < 0.3:  # the holes of the lamina cribrosa
        light = light * (1.0 - rng.uniform(0.05, 0.2) * pale * (clouds(rng, 45, CANVAS) > 0.8))
    turn = rng.uniform(0.0, 2 * np.pi)
    down, right = np.gradient(soften(depth, 0.05 * radius), 1.0 / CANVAS)
    wall = np.tanh(0.5 * (right * np.cos(turn) + down * np.sin(turn)) * radius)
    return light * np.asarray(1.0 + rng.uniform(0.0, 0.22) * wall - rng.uniform(-0.05, 0.12) * depth, np.float32)


def _vessels(light: _Field, head: NerveHead, depth: _Field, rng: _Rng) -> _Field:
    """Vessels from the nasal side of the cup, winding over it, and bent where they climb out of it."""
    radius = _radius(head.disc)
    canvas = np.zeros((CANVAS, CANVAS, 2), np.uint8)
    calibre = radius * rng.uniform(0.09, 0.21)
    hilum = head.cup.centre + _radius(head.cup) * np.array([rng.uniform(-1.0, 0.1), rng.normal(0.0, 0.2)])
    spread = radius * np.array([rng.uniform(0.02, 0.15), rng.uniform(0.05, 0.35)])
    trunks = [(90.0 * up, 22.0, 1.0) for up in (-1, 1)] + [(140.0 * up, 25.0, 0.6) for up in (-1, 1)]
    trunks += [(90.0 * up, 30.0, 0.7) for up in (-1, 1) if rng.random() < 0.5]
    trunks += [(40.0 * up, 25.0, 0.4) for up in (-1, 1) if rng.random() < 0.5] + [(0.0, 35.0, 0.3)]
    thinner = rng.uniform(0.6, 0.9)
    for density, streak, relative in ((1.0, 0.3, 1.0), (rng.uniform(0.4, 0.8), 1.0, thinner)):
        for degrees, scatter, share in trunks:
            start = hilum + spread * rng.standard_normal(2)
            heading = np.deg2rad(rng.normal(degrees, scatter))
            bend = -np.sign(np.sin(heading)) * rng.uniform(-0.6, 1.2) if abs(np.cos(heading)) < 0.7 else 0.0
            width = calibre * relative * share * rng.uniform(0.7, 1.15)
            for vessel in grow_vessels(start, heading, bend, width, 1.0, 1.0, rng):
                draw(canvas, vessel.ribbon(1.0), (255 * density, 0))
                draw(canvas, vessel.ribbon(0.25), (255 * density, 255 * streak))
    bent = _bend(canvas, head, depth, rng).astype(np.float32) / 255.0
    blood, reflex = np.moveaxis(bent, -1, 0)
    absorbed = colours((rng.uniform(0.12, 0.55), rng.uniform(0.7, 1.5), rng.uniform(0.5, 1.3)))[0]
    light = light * np.exp(-absorbed * soften(np.ascontiguousarray(blood), rng.uniform(0.10, 0.35) * calibre))
    return light + rng.uniform(0.0, 0.10) * soften(np.ascontiguousarray(reflex), 0.08 * calibre)


def _bend(canvas: NDArray[np.uint8], head: NerveHead, depth: _Field, rng: _Rng) -> NDArray[np.uint8]:
    """Vessels as they are seen: shifted in the cup, most where it is deepest, and winding on the disc."""
    radius = _radius(head.disc)
    shift = rng.uniform(0.0, 0.3) * _radius(head.cup) * np.array([rng.uniform(-1.0, 0.3), rng.normal(0.0, 0.4)])
    on_disc = soften(area(head.disc.points(), 0.1 * radius, CANVAS), 0.1 * radius)
    winding = on_disc * np.float32(rng.choice([0.0, 0.05, 0.12]) * radius)
    cells = int(rng.integers(5, 12))
    x = _X - shift[0] * depth + winding * clouds(rng, cells, CANVAS)
    y = _Y - shift[1] * depth + winding * clouds(rng, cells, CANVAS)
    across, down = (np.asarray(each * CANVAS - 0.5, np.float32) for each in (x, y))
    return np.asarray(cv2.remap(canvas, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _haemorrhage(light: _Field, disc: Outline, rng: _Rng) -> _Field:
    """A flame of blood along the fibres, across the disc's border."""
    turn = rng.uniform(0.0, 2 * np.pi)
    length, breadth = _radius(disc) * rng.uniform(0.1, 0.4), _radius(disc) * rng.uniform(0.02, 0.10)
    along = np.array([np.cos(turn), np.sin(turn)])
    centre = disc.centre + along * (_radius(disc) * rng.uniform(0.8, 1.1) + 0.5 * length)
    steps = np.linspace(0.0, 2 * np.pi, 60, endpoint=False)
    points = centre + length * np.cos(steps)[:, None] * along
    points = points + breadth * (np.sin(steps) * rng.uniform(0.6, 1.4, 60))[:, None] * np.array([-along[1], along[0]])
    return blend(light, _BLED, area(points, 0.004, CANVAS) * np.float32(rng.uniform(0.4, 0.9)))
