"""Affine maps that move a photograph and its true masks together, and what scores they give. No torch.

The TVConv paper (CVPR 2022, Fig. 11) rotates, shears, scales and translates the photographs that a network is tested
on, since an operator whose kernels depend on the position might suffer where the layout moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import Perturbation
from fundus_seg.errors import UsageError
from fundus_seg.evaluation.records import Evaluation

STRENGTHS: dict[Perturbation, tuple[float, ...]] = {
    "rotate": (-45, -30, -15, 0, 15, 30, 45),
    "shear": (-30, -20, -10, 0, 10, 20, 30),
    "scale": (0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3),
    "translate": (-0.2, -0.1, -0.05, 0, 0.05, 0.1, 0.2),
}
"""The strengths of each map, unless the caller names others."""
MEANINGS: dict[Perturbation, str] = {
    "rotate": "degrees, counter-clockwise where they are positive",
    "shear": "degrees by which upright lines lean, to the right at the bottom where they are positive",
    "scale": "factor of the size, 1 for the photograph as it is",
    "translate": "share of the frame's width, to the right where it is positive",
}
"""What a strength of each map is."""
_POSSIBLE: dict[Perturbation, tuple[float, float]] = {
    "rotate": (-360, 360),
    "shear": (-80, 80),
    "scale": (0.1, 10),
    "translate": (-0.9, 0.9),
}


@dataclass(frozen=True)
class Move:
    """One affine map about the middle of the frame.

    With the offset r = (x, y) of a pixel from the middle, x to the right and y downwards, the pixel moves to L r + t:

        rotate by a:     L = [[cos a, sin a], [-sin a, cos a]]
        shear by a:      L = [[1, tan a], [0, 1]]
        scale by s:      L = s I
        translate by u:  L = I, t = (u W, 0), W the frame's width; t = 0 for the other three.

    Attributes:
        kind: which map.
        strength: how far it moves, as MEANINGS says.
    """

    kind: Perturbation
    strength: float

    @property
    def is_identity(self) -> bool:
        """Whether it leaves all as it is."""
        return self.strength == identity_of(self.kind)

    def matrix(self, height: int, width: int) -> NDArray[np.float64]:
        """The map (2, 3) of pixel coordinates (x, y, 1) in a frame, whose middle is ((W - 1) / 2, (H - 1) / 2)."""
        angle = math.radians(self.strength)
        linear, shift = np.eye(2), np.zeros(2)
        if self.kind == "rotate":
            linear = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        elif self.kind == "shear":
            linear[0, 1] = math.tan(angle)
        elif self.kind == "scale":
            linear *= self.strength
        else:
            shift[0] = self.strength * width
        middle = np.array([width - 1, height - 1]) / 2
        return np.column_stack([linear, middle - linear @ middle + shift])

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The moved photograph (H, W, 3): bilinear, and reflected at the border of the frame."""
        return image if self.is_identity else self._moved(image, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)

    def masks(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The moved true masks (2, H, W): of the nearest pixel, and empty where the frame has shown nothing."""
        if self.is_identity:
            return masks
        moved = (self._moved(mask.astype(np.uint8), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) for mask in masks)
        return np.stack([*moved]).astype(bool)

    def _moved(self, pixels: NDArray[np.uint8], flags: int, border: int) -> NDArray[np.uint8]:
        height, width = pixels.shape[:2]
        moved = cv2.warpAffine(pixels, self.matrix(height, width), (width, height), flags=flags, borderMode=border)
        return np.asarray(moved, np.uint8)


def identity_of(kind: Perturbation) -> float:
    """The strength that leaves a photograph as it is."""
    return 1.0 if kind == "scale" else 0.0


def strengths_of(kind: Perturbation, strengths: Sequence[float] | None = None) -> list[float]:
    """The strengths in rising order, the one that leaves photographs as they are always among them.

    Args:
        kind: which map.
        strengths: those that the caller wants; None for STRENGTHS.

    Raises:
        UsageError: a strength is not possible.
    """
    low, high = _POSSIBLE[kind]
    for strength in strengths or ():
        if not low <= strength <= high:  # which NaN is not either
            raise UsageError(f"strength {strength:g} of {kind}: it is from {low:g} to {high:g} ({MEANINGS[kind]})")
    wanted = STRENGTHS[kind] if strengths is None else strengths
    return sorted({identity_of(kind), *map(float, wanted)})


@dataclass(frozen=True)
class Perturbed:
    """Scores of moved photographs.

    Attributes:
        kind: by which map they were moved.
        evaluations: by strength, in rising order, the scores of each run; they are on no disk, and their `meta` is that
            of the run's evaluation on the photographs as they are.
    """

    kind: Perturbation
    evaluations: Mapping[float, Sequence[Evaluation]]
