"""Draw varied eyes: the widest range of discs, cups, surroundings, cameras and readers, to learn from.

The four domains of the phantom differ from each other as four hospitals do. Here every eye has a camera and a reader
of its own, drawn from ranges that are wider than real ones (J. Tobin et al.: Domain randomization for transferring deep
neural networks from simulation to the real world. IROS 2017, arXiv 1703.06907). The numbers are no measurements: they
were chosen by eye, beside photographs of two cameras (docs/starter.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND, CUP, RIM
from fundus_seg.phantom.camera import as_jpeg, expose
from fundus_seg.phantom.canvas import clouds, draw, soften
from fundus_seg.phantom.domains import PHANTOM_DOMAINS, Camera
from fundus_seg.phantom.eye import CANVAS, NerveHead, ellipse
from fundus_seg.phantom.varied_light import varied_light

_Light = NDArray[np.float32]
_Rng = np.random.Generator


def draw_varied(domain: str, index: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one case: a photograph (CANVAS, CANVAS, 3) uint8 RGB and its mask (CANVAS, CANVAS) uint8, coding `dofe`.

    The result depends on the arguments alone. The domains differ in nothing but their cases.

    Args:
        domain: a key of PHANTOM_DOMAINS.
        index: of the case in its domain.
        seed: of every case.
    """
    streams = np.random.SeedSequence(seed, spawn_key=(list(PHANTOM_DOMAINS).index(domain), index)).spawn(4)
    anatomy, tissue, exposure, hand = (np.random.default_rng(stream) for stream in streams)
    left_eye = anatomy.random() < 0.5
    head = _grow(anatomy)
    light, mask = varied_light(head, tissue), _annotate(head, hand)
    if left_eye:  # its temporal side is on the left
        light, mask = light[..., ::-1], mask[..., ::-1]
    return _photograph(light, exposure), np.ascontiguousarray(mask)


def _grow(rng: _Rng) -> NerveHead:
    """The outlines of a random eye: discs from small to crop-filling and round to tilted, cups from a dimple to all."""
    height = np.exp(rng.uniform(np.log(0.42), np.log(0.88)))
    width = height * rng.uniform(0.76, 1.03)
    disc = ellipse(0.5 + rng.normal(0.0, 0.025, 2), width, height, rng.normal(0.0, 0.3)).redrawn(rng, wobble=0.015)
    ratio = np.clip(rng.normal(0.53, 0.17), 0.2, 0.92)
    centre = disc.centre + np.array([rng.normal(0.02, 0.035) * width, rng.normal(0.0, 0.03) * height])
    across = ratio * width * np.exp(rng.normal(0.03, 0.10))
    return NerveHead(disc, ellipse(centre, across, ratio * height, rng.normal(0.0, 0.4)).redrawn(rng, wobble=0.03))


def _annotate(head: NerveHead, rng: _Rng) -> NDArray[np.uint8]:
    """The mask (CANVAS, CANVAS) uint8 as a reader with habits of their own draws it."""
    disc = head.disc.redrawn(rng, scale=rng.normal(1.025, 0.02), wobble=0.01)  # readers draw around it
    cup = head.cup.redrawn(rng, scale=rng.normal(1.0, 0.04), wobble=0.02)
    mask = np.full((CANVAS, CANVAS), BACKGROUND, np.uint8)
    for points, grey in ((disc.points(), RIM), (disc.confine(cup.points(), 0.97), CUP)):
        draw(mask, points, (grey,), smooth=False)
    return mask


def _photograph(light: _Light, rng: _Rng) -> NDArray[np.uint8]:
    """Photograph (CANVAS, CANVAS, 3) uint8 the light (3, CANVAS, CANVAS) with a random camera through random media."""
    camera = Camera(
        gain=(rng.uniform(0.75, 1.25), rng.uniform(0.6, 1.15), rng.uniform(0.35, 1.25)),
        gamma=rng.uniform(0.7, 1.4),
        haze=rng.choice([0.0, 0.1, 0.35]) * rng.random(),
        falloff=rng.uniform(0.0, 0.6),
        uneven=rng.uniform(0.0, 0.12),
        blur=np.exp(rng.uniform(np.log(0.6), np.log(7.0))),
        noise=rng.uniform(0.0, 5.0),
        jpeg=int(rng.integers(50, 96)),
    )
    light = light * np.float32(np.exp(rng.normal(0.0, 0.25)))
    if rng.random() < 0.15:
        light = light + np.float32(rng.uniform(0.05, 0.4)) * _glare(rng)
    signal = expose(light, camera, rng)
    signal += camera.noise * rng.standard_normal((CANVAS, CANVAS), np.float32)
    if rng.random() < 0.5:  # many cameras sharpen
        blurred = np.stack([soften(channel, rng.uniform(0.003, 0.012)) for channel in signal])
        signal += np.float32(rng.uniform(0.2, 1.5)) * (signal - blurred)
    if rng.random() < 0.2:
        signal = signal * _field_of_view(rng)
    return as_jpeg(np.dstack(np.clip(signal + 0.5, 0.0, 255.0).astype(np.uint8)), camera.jpeg)


def _glare(rng: _Rng) -> _Light:
    """A reflection (CANVAS, CANVAS), 0 to 1: a veil with no border, or the sheen of a young retina."""
    if rng.random() < 0.5:
        return np.clip(clouds(rng, 4, CANVAS), 0.0, 1.0)
    return np.clip(clouds(rng, 12, CANVAS) - 1.2, 0.0, 1.0)


def _field_of_view(rng: _Rng) -> _Light:
    """1 within the round field of view and 0 beside it, (CANVAS, CANVAS); it cuts a corner or an edge of the crop."""
    turn, radius, inside = rng.uniform(0.0, 2 * np.pi), rng.uniform(1.0, 2.5), rng.uniform(0.38, 0.6)
    centre = 0.5 - (radius - inside) * np.array([np.cos(turn), np.sin(turn)])
    y, x = (np.indices((CANVAS, CANVAS), np.float32) + 0.5) / CANVAS
    far = np.hypot(x - np.float32(centre[0]), y - np.float32(centre[1]))
    return np.clip((radius - far) / 0.006 + 0.5, 0.0, 1.0).astype(np.float32)
