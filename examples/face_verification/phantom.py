"""Phantom faces: drawings of one layout, whose identities differ in local texture and a little in geometry.

They are faces of nobody and are made to look like nobody: four blobs on an oval. What they share with aligned faces is
what TVConv is made for, that the same part lies at the same place in every picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.phantom.canvas import area, blend, clouds, colours
from fundus_seg.phantom.eye import ellipse
from fundus_seg.seeding import generator

_PARTS = ((0.31, 0.42, 0.24, 0.13), (0.69, 0.42, 0.24, 0.13), (0.50, 0.58, 0.15, 0.22), (0.50, 0.79, 0.34, 0.12))
"""x, y, width and height of eyes, nose and mouth, as shares of the side."""
_GROUND, _SKIN, _PART = colours((0.15, 0.2, 0.25), (0.6, 0.55, 0.5), (0.45, 0.3, 0.3))


def draw_face(identity: int, picture: int, *, seed: int = 0, side: int = 96) -> NDArray[np.uint8]:
    """One picture (side, side, 3) of an identity: its parts under another light, a little moved, with noise."""
    own, seen = generator(seed, identity, "face"), generator(seed, picture, f"picture/{identity}")
    image = blend(_GROUND, _SKIN, area(ellipse(np.array([0.5, 0.52]), 0.8, 0.94, 0.0).points(), 0.01, side))
    for x, y, width, height in _PARTS:
        place = np.array([x, y]) + own.normal(0.0, 0.015, 2) + seen.normal(0.0, 0.005, 2)
        sides = np.array([width, height]) * np.exp(own.normal(0.0, 0.12, 2))
        outline = ellipse(place, *sides, own.normal(0.0, 0.1)).points()
        texture = 1.0 + 0.5 * clouds(own, 12, side)
        image = blend(image, _PART * texture, area(outline, 0.01, side))
    light = seen.uniform(0.7, 1.3) * (1.0 + 0.15 * clouds(seen, 3, side))
    image = image * light + seen.normal(0.0, 0.03, image.shape)
    return np.round(255 * np.clip(image, 0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)


def make_faces(
    out: Path, *, identities: int = 40, unseen: int = 20, pictures: int = 10, seed: int = 0, side: int = 96
) -> None:
    """Write `train/` with a folder for each identity, `test/` with others, and `pairs.txt` of these in LFW's layout.

    Each of the ten folds has `unseen` pairs of one identity and as many of two.

    Args:
        out: the folder.
        identities: to train on.
        unseen: identities of the pairs, none of them trained on.
        pictures: of each identity, at least 2.
        seed: of everything drawn.
        side: of the pictures in pixels.
    """
    for number in range(identities + unseen):
        part, name = ("train", "test")[number >= identities], _name(number)
        folder = out / part / name
        folder.mkdir(parents=True, exist_ok=True)
        for picture in range(pictures):
            face = draw_face(number, picture, seed=seed, side=side)
            Image.fromarray(face).save(folder / f"{name}_{picture + 1:04d}.png")
    rng = generator(seed, 0, "pairs")
    lines = [f"10\t{unseen}"]
    for _ in range(10):
        for number in range(identities, identities + unseen):
            one, two = 1 + rng.choice(pictures, 2, replace=False)
            lines.append(f"{_name(number)}\t{one}\t{two}")
        for number in range(identities, identities + unseen):
            other = identities + (number - identities + rng.integers(1, unseen)) % unseen
            one, two = 1 + rng.integers(pictures, size=2)
            lines.append(f"{_name(number)}\t{one}\t{_name(other)}\t{two}")
    (out / "pairs.txt").write_text("\n".join(lines) + "\n", "utf8")


def _name(number: int) -> str:
    return f"phantom_{number:04d}"
