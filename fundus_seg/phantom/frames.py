"""Photograph whole frames of the phantom: a field of view of some shape, on black, by one of four cameras.

Every camera's settings are drawn anew for each frame between the limits of its domain, so that what was made of three
domains can be tried on a camera that it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND, CUP, RIM
from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.phantom.camera import as_jpeg, expose
from fundus_seg.phantom.canvas import clouds, draw
from fundus_seg.phantom.domains import PHANTOM_DOMAINS
from fundus_seg.phantom.eye import NerveHead
from fundus_seg.phantom.retina import Aim, grow_retina

Shape = Literal["round", "flat", "truncated", "filled", "small"]
"""How the field of view lies in the frame: whole; cut above and below, within the frame; cut by the frame's edges; all
of the frame; or whole, with a wide border."""


@dataclass(frozen=True)
class FrameCamera:
    """How a centre takes whole photographs; a frame draws its settings from these.

    Attributes:
        field: least and largest field of view, in degrees.
        aims: what stands in the middle, the frequent aims several times.
        sizes: widths and heights in pixels.
        shapes: how the field of view lies in the frame.
        border: grey level of the darkness around it.
        text: share of the frames with letters in the border.
        shadow: share with a dark side: a lid, a lash, a small pupil.
        flare: share with a bright crescent of stray light at the edge.
    """

    field: tuple[float, float]
    aims: tuple[Aim, ...]
    sizes: tuple[tuple[int, int], ...]
    shapes: tuple[Shape, ...]
    border: tuple[float, float]
    text: float
    shadow: float
    flare: float


FRAME_CAMERAS: dict[str, FrameCamera] = {
    "A": FrameCamera(
        (28, 37), ("disc", "disc", "between"), ((720, 480), (900, 600), (760, 570)), ("truncated", "flat", "filled"),
        (0, 35), 0.5, 0.45, 0.25,
    ),
    "B": FrameCamera(
        (42, 48), ("macula", "macula", "disc"), ((720, 720), (1024, 768), (960, 640)), ("round", "truncated"),
        (0, 8), 0.2, 0.25, 0.35,
    ),
    "C": FrameCamera(
        (36, 50), ("macula", "between", "disc"), ((820, 794), (1000, 750), (640, 480)), ("round", "flat", "filled"),
        (2, 20), 0.1, 0.30, 0.20,
    ),
    "D": FrameCamera(
        (48, 60), ("macula", "between", "disc"), ((1100, 825), (700, 900), (960, 720)), ("flat", "small", "round"),
        (0, 25), 0.4, 0.30, 0.40,
    ),
}  # fmt: skip


def draw_frame(domain: str, index: int, seed: int, *, most: int = 900) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a whole photograph (H, W, 3) uint8 RGB and its mask (H, W) uint8 in the coding `dofe`.

    The result depends on the arguments alone, not on other frames. The mask is the true one: no annotator is drawn.

    Args:
        domain: key of the domain, whose eyes and camera they are.
        index: number of the frame.
        seed: seed of every frame.
        most: longest side in pixels; a frame that would be larger is drawn smaller.

    Raises:
        UsageError: unknown domain.
    """
    if domain not in FRAME_CAMERAS:
        raise UsageError(unknown_name("phantom domain", domain, FRAME_CAMERAS))
    centre, settings = PHANTOM_DOMAINS[domain], FRAME_CAMERAS[domain]
    key = (list(FRAME_CAMERAS).index(domain), index, 1)  # the crops' keys have no third number
    anatomy, tissue, exposure, stand = map(np.random.default_rng, np.random.SeedSequence(seed, spawn_key=key).spawn(4))
    field = stand.uniform(*settings.field)
    place = _place(settings, most, stand)
    aim = settings.aims[int(stand.integers(len(settings.aims)))]
    side = round(place.diameter)
    retina = grow_retina(centre.eyes, field, aim, side, anatomy, tissue)
    light, head = retina.light, retina.head
    if anatomy.random() < 0.5:  # a left eye, its temporal side on the left
        light, head = light[..., ::-1], head.mirrored()
    signal = expose(light, centre.camera, exposure, retina.unit)
    signal = _stray(signal, settings, exposure)
    frame = place.framed(np.moveaxis(signal, 0, -1), exposure.uniform(*settings.border))
    frame += centre.camera.noise * exposure.standard_normal(frame.shape[:2], np.float32)[..., None]
    pixels = np.clip(frame + 0.5, 0.0, 255.0).astype(np.uint8)
    if exposure.random() < settings.text:
        _write_text(pixels, exposure)
    return as_jpeg(pixels, centre.camera.jpeg), place.mask(head)


@dataclass(frozen=True)
class _Place:
    """Where the square around the field of view lies in the frame, in pixels, and how far the field reaches in it.

    Attributes:
        size: width and height of the frame.
        diameter: side of that square.
        corner: its upper left corner (x, y), which may lie outside the frame.
        flat: where the field is cut above and below, as a share of its radius; 1: nowhere.
        filled: whether the field is cut by nothing but the frame.
        tab: direction of a small tab at the edge of the field, in radians; None: there is none.
    """

    size: tuple[int, int]
    diameter: float
    corner: NDArray[np.float64]
    flat: float
    filled: bool
    tab: float | None

    def framed(self, signal: NDArray[np.float32], border: float) -> NDArray[np.float32]:
        """The frame (H, W, 3) with the field of view of a signal (side, side, 3), on a border of that grey level."""
        width, height = self.size
        scale = self.diameter / len(signal)
        move = np.array([[scale, 0, self.corner[0]], [0, scale, self.corner[1]]])
        frame = cv2.warpAffine(signal, move, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if self.filled:
            return np.asarray(frame, np.float32)
        radius = self.diameter / 2
        y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
        x, y = x - self.corner[0] - radius, y - self.corner[1] - radius
        beyond = np.maximum(np.hypot(x, y), np.abs(y) + (1.0 - self.flat) * radius) - radius
        if self.tab is not None:
            at = radius * np.array([np.cos(self.tab), np.sin(self.tab)])
            beyond = np.minimum(beyond, np.hypot(x - at[0], y - at[1]) - 0.03 * radius)
        seen = np.clip(0.5 - beyond, 0.0, 1.0)[..., None]
        return np.asarray(border + (frame - border) * seen, np.float32)

    def mask(self, head: NerveHead) -> NDArray[np.uint8]:
        """The mask (H, W) in the coding `dofe` of a disc and cup on the canvas of the field of view."""
        longest = max(self.size)
        canvas = np.full((longest, longest), BACKGROUND, np.uint8)
        for points, grey in ((head.disc.points(), RIM), (head.disc.confine(head.cup.points(), 0.94), CUP)):
            draw(canvas, (points * self.diameter + self.corner) / longest, (grey,), smooth=False)
        return np.ascontiguousarray(canvas[: self.size[1], : self.size[0]])


def _place(settings: FrameCamera, most: int, rng: np.random.Generator) -> _Place:
    width, height = settings.sizes[int(rng.integers(len(settings.sizes)))]
    shrink = min(1.0, most / max(width, height))
    width, height = round(width * shrink), round(height * shrink)
    shape = settings.shapes[int(rng.integers(len(settings.shapes)))]
    short = min(width, height)
    diameter = {
        "round": short * rng.uniform(0.90, 0.99),
        "flat": min(short * rng.uniform(1.0, 1.2), 0.98 * width),
        "truncated": min(short * rng.uniform(1.05, 1.3), 0.99 * max(width, height)),
        "filled": float(np.hypot(width, height)) * rng.uniform(1.0, 1.1),
        "small": short * rng.uniform(0.50, 0.80),
    }[shape]
    loose = 0.02 * short if shape != "small" else 0.1 * short
    corner = np.array([width, height]) / 2 - diameter / 2 + rng.uniform(-loose, loose, 2)
    flat = rng.uniform(0.78, 0.95) if shape == "flat" else 1.0
    tab = rng.uniform(0.0, 2 * np.pi) if rng.random() < 0.3 else None
    return _Place((width, height), diameter, corner, flat, shape == "filled", tab)


def _stray(signal: NDArray[np.float32], settings: FrameCamera, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add the dark side, the bright crescent at the edge and the pale spots that many photographs have."""
    side = signal.shape[-1]
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    if rng.random() < settings.shadow:
        towards, width = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.05, 0.25)
        along = x * np.cos(towards) + y * np.sin(towards) + 0.05 * clouds(rng, 4, side)
        dark = 1.0 / (1.0 + np.exp(-(along - rng.uniform(0.55, 0.95)) / width))
        veil = rng.uniform(10.0, 60.0)
        signal = signal + (veil - signal) * (rng.uniform(0.5, 1.0) * dark)
    if rng.random() < settings.flare:
        towards, thick = rng.uniform(0.0, 2 * np.pi), rng.choice([rng.uniform(0.05, 0.2), rng.uniform(0.2, 0.7)])
        edge = np.exp(-np.square((1.0 - np.hypot(x, y)) / thick))
        edge *= np.clip(np.cos(np.arctan2(y, x) - towards), 0.0, 1.0) ** rng.uniform(1.0, 8.0)
        colour = rng.uniform((120, 90, 40), (255, 220, 210)).astype(np.float32)[:, None, None]
        signal = signal + (colour - signal) * (rng.uniform(0.3, 0.9) * edge)
    for _ in range(int(rng.poisson(0.4))):  # dust on the lens, reflexes of the cornea
        at, size = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.01, 0.12)
        spot = np.exp(-np.square(np.hypot(x - at[0], y - at[1]) / size) / 2)
        signal = signal + (rng.uniform(140.0, 255.0) - signal) * (rng.uniform(0.1, 0.5) * spot)
    return np.asarray(signal, np.float32)


def _write_text(pixels: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Write a number or a date into a corner of the frame (H, W, 3)."""
    height, width = pixels.shape[:2]
    text = "".join(rng.choice(list("0123456789/:-R L"), int(rng.integers(4, 12))))
    scale = height * rng.uniform(0.0010, 0.0022)
    place = (int(rng.choice([0.01, 0.7]) * width), int(rng.choice([0.05, 0.97]) * height))
    colour = [(255, 255, 255), (255, 230, 60), (90, 200, 210)][int(rng.integers(3))]
    upright = np.ascontiguousarray(pixels.transpose(1, 0, 2)) if (turned := rng.random() < 0.3) else pixels
    cv2.putText(upright, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1 + round(scale), cv2.LINE_AA)
    if turned:
        pixels[:] = upright.transpose(1, 0, 2)
