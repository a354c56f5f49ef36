"""What the localiser sees while it is trained: squares of whole photographs, as other cameras would have taken them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.augment.operations import grain, jpeg
from fundus_seg.models.localiser import LOOK, STRIDE

_KINDS = {"field": 0.4, "disc": 0.46, "elsewhere": 0.08, "nothing": 0.06}
"""Shares of the views: of the whole field of view; of a square around the disc, as the second look and as crops are
framed; of a square beside the disc; of a picture that shows no eye."""


@dataclass(frozen=True)
class Framed:
    """A photograph to take views of.

    Attributes:
        image: (H, W, 3) uint8.
        disc: (H, W) uint8, 255 in the disc.
        field: middle and longer side of its field of view (x, y, side), in pixels.
    """

    image: NDArray[np.uint8]
    disc: NDArray[np.uint8]
    field: tuple[float, float, float]


def draw_view(framed: Framed, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A random view (LOOK, LOOK, 3) uint8 of a photograph, and how much of it is disc, (LOOK / 4, LOOK / 4)."""
    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    if kind == "nothing":
        return _change_colours(_no_eye(rng), rng), np.zeros((LOOK // STRIDE, LOOK // STRIDE), np.float32)
    move = _move(framed, kind, rng)
    image = cv2.warpAffine(framed.image, move, (LOOK, LOOK), flags=cv2.INTER_AREA)
    disc = cv2.warpAffine(framed.disc, move, (LOOK, LOOK), flags=cv2.INTER_LINEAR)
    shares = cv2.resize(disc, None, fx=1 / STRIDE, fy=1 / STRIDE, interpolation=cv2.INTER_AREA)
    return _change_colours(np.asarray(image, np.uint8), rng), np.asarray(shares / 255.0, np.float32)


def _move(framed: Framed, kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """The matrix (2, 3) that takes the photograph's pixels to those of the view."""
    rows, columns = np.nonzero(framed.disc)
    x, y, diameter = columns.mean() + 0.5, rows.mean() + 0.5, 2 * np.sqrt(len(rows) / np.pi)
    field_x, field_y, side = framed.field
    if kind == "disc":
        side = min(diameter / np.exp(rng.uniform(np.log(0.14), np.log(0.95))), 1.3 * side)
        spread = max(0.0, 0.5 - 0.5 * diameter / side) * 0.7
        x, y = np.array([x, y]) + rng.uniform(-spread, spread, 2) * side
    elif kind == "elsewhere":
        reach = side / 2
        side = diameter / rng.uniform(0.15, 0.5)
        towards = rng.uniform(0.0, 2 * np.pi)
        x, y = (field_x + reach * 0.7 * np.cos(towards), field_y + reach * 0.7 * np.sin(towards))
    else:
        x, y = np.array([field_x, field_y]) + rng.normal(0.0, 0.04, 2) * side
        side *= np.exp(rng.uniform(np.log(0.75), np.log(1.8)))
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.1 else rng.normal(0.0, np.deg2rad(12))
    stretch = np.exp(rng.normal(0.0, 0.05))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * LOOK / side
    turn = turn @ np.diag([rng.choice([-1, 1]) * stretch, (1 if rng.random() < 0.7 else -1) / stretch])
    return np.column_stack([turn, LOOK / 2 - turn @ [x, y]])


def _change_colours(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture (LOOK, LOOK, 3) by another camera: other colours, light and sharpness."""
    light = image.astype(np.float32) / 255.0
    if rng.random() < 0.3:  # the lamp stands elsewhere
        corners = rng.uniform(0.3, 1.2, (2, 2)).astype(np.float32)
        light *= cv2.resize(corners, (LOOK, LOOK), interpolation=cv2.INTER_LINEAR)[..., None]
    grey = light.mean(axis=2, keepdims=True)
    if rng.random() < 0.06:
        light = np.repeat(light[..., 1:2], 3, axis=2)  # red-free
    else:
        light = grey + (light - grey) * rng.uniform(0.0, 2.2)
    light = np.clip(light, 0.0, 1.0) ** np.exp(rng.normal(0.0, 0.3, 3) + rng.normal(0.0, 0.25)).astype(np.float32)
    light *= np.exp(rng.normal(0.0, 0.18, 3) + rng.normal(0.0, 0.2)).astype(np.float32)
    if rng.random() < 0.3:
        haze = rng.uniform(0.0, 0.5)
        light = light * (1.0 - haze) + haze * rng.uniform(0.1, 0.7, 3).astype(np.float32) * (grey > 0.05)
    if rng.random() < 0.4:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 1.8))
    if rng.random() < 0.2:  # contrast of the surroundings raised, as by CLAHE
        light += rng.uniform(0.3, 1.5) * (light - cv2.GaussianBlur(light, (0, 0), rng.uniform(2.0, 20.0)))
    picture = np.asarray(np.clip(255.0 * light + 0.5, 0.0, 255.0), np.uint8)
    if rng.random() < 0.4:
        picture = grain(picture, rng.uniform(1.0, 14.0), rng)
    return jpeg(picture, rng.uniform(20.0, 70.0)) if rng.random() < 0.2 else picture


def _no_eye(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture (LOOK, LOOK, 3) of something else: layers as in an OCT print, blots, a page of text, some shapes."""
    picture = np.full((LOOK, LOOK, 3), rng.uniform(0, 255, 3) if rng.random() < 0.5 else rng.integers(0, 256), np.uint8)

    def colour() -> list[float]:
        return [float(each) for each in rng.uniform(0, 255, 3)]

    what = int(rng.integers(4))
    if what == 0:
        level = rng.uniform(0.2, 0.8) * LOOK
        bend = np.cumsum(rng.normal(0.0, 0.8, LOOK))
        for _ in range(int(rng.integers(3, 9))):
            level += rng.uniform(3.0, 20.0)
            points = np.column_stack([np.arange(LOOK), level + bend]).astype(np.int32)
            cv2.polylines(picture, [points], False, colour(), int(rng.integers(1, 14)))
    elif what == 1:
        cells = int(rng.integers(2, 40))
        blots = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        return np.asarray(cv2.resize(blots, (LOOK, LOOK)), np.uint8)
    elif what == 2:
        for row in range(10, LOOK, int(rng.integers(10, 40))):
            text = "".join(rng.choice(list("abcdefghijklmnop 0123456789"), 30))
            cv2.putText(picture, text, (5, row), cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.2, 0.7), colour())
    else:
        for _ in range(int(rng.integers(0, 8))):
            corners = rng.integers(0, LOOK, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(picture, [corners.astype(np.int32)], colour())
    return picture
