"""Find the optic disc in a whole photograph.

The field of view is found by its light. The network (`fundus_seg.models.localiser`) looks at the square around it, and
then closer, at squares around each thing there that may be the disc, in which it has one size, whatever the camera.
Each close look corrects the one before, and the last one measures the disc; what any of them takes for no disc is none.
A close look is the mean of the square's and of its mirror image's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fundus_seg.data.box import Box
from fundus_seg.data.field import field_box
from fundus_seg.inference.roi import NO_EYE, TWO_DISCS
from fundus_seg.models import scale_photographs
from fundus_seg.models.localiser import LOOK, STRIDE, LocaliserNet, load_localiser

CLOSE = (0.5, 0.7, 0.7)
"""Diameter of the disc as a share of the square of each close look, if the look before has measured it well. The first
may be wrong about it and sees more around; the nearer the disc, the less of its surroundings is taken for it."""
_LONGEST = 1000
"""Longest side, in pixels, near which a large photograph is made as small by a whole number: looks are then faster."""
_PRESENT, _SURE = 0.5, 0.7
"""Probability of a disc's pixels, and of the surest of them."""
_RIVAL, _RIVALS = 0.5, 3
"""What the first look takes for so likely beside the likeliest is looked at closely too, so many of them at most."""


@dataclass(frozen=True)
class FoundDisc:
    """A disc in a photograph: its middle, and the diameter of the circle of its area, in pixels."""

    x: float
    y: float
    diameter: float
    probability: float


@dataclass(frozen=True)
class _Spot:
    """A part of a map of probabilities: its middle, diameter, and sum and maximum of its probabilities."""

    x: float
    y: float
    diameter: float
    total: float
    surest: float


class Localiser:
    """Finds the disc: `localiser(photograph)`, any number of threads at a time.

    Args:
        network: the network.
    """

    def __init__(self, network: LocaliserNet) -> None:
        self.network = network

    def __call__(self, image: NDArray[np.uint8]) -> FoundDisc | str:
        """The disc in a photograph (H, W, 3) uint8; or why none is found, in a word: `NO_EYE` or `TWO_DISCS`."""
        smaller = max(1, max(image.shape[:2]) // _LONGEST)
        found = self._find(_shrunk(image, smaller))
        if isinstance(found, str):
            return found
        return FoundDisc(smaller * found.x, smaller * found.y, smaller * found.diameter, found.probability)

    def _find(self, image: NDArray[np.uint8]) -> FoundDisc | str:
        field = field_box(image)
        first = Box.around(field.x + field.width / 2, field.y + field.height / 2, max(field.width, field.height))
        discs: list[FoundDisc] = []
        for spot in _likely(self._look(image, first, mirrored=False)):
            disc = self._measure(image, spot)
            if disc and not any(_near(disc, other) for other in discs):
                discs.append(disc)
        if len(discs) == 1:
            return discs[0]
        return TWO_DISCS if discs else NO_EYE

    def _measure(self, image: NDArray[np.uint8], best: _Spot) -> FoundDisc | None:
        """The disc that a spot turns out to be when it is looked at closely; None: it is none."""
        for share in CLOSE:
            square = Box.around(best.x, best.y, best.diameter / share)
            seen = [spot for spot in self._look(image, square) if _near(spot, best)]
            if not seen or seen[0].surest < _SURE:
                return None
            best = seen[0]
        return FoundDisc(best.x, best.y, best.diameter, best.surest)

    @torch.inference_mode()
    def _look(self, image: NDArray[np.uint8], square: Box, *, mirrored: bool = True) -> list[_Spot]:
        """What may be a disc in a square of the photograph, or in it and its mirror image; the likeliest first."""
        kind = cv2.INTER_AREA if square.width > LOOK else cv2.INTER_LINEAR
        seen = cv2.resize(square.cut(image), (LOOK, LOOK), interpolation=kind)
        views = np.stack([seen, seen[:, ::-1]] if mirrored else [seen])
        batch = scale_photographs(torch.from_numpy(views).permute(0, 3, 1, 2))
        with _single_thread():
            maps = self.network(batch.contiguous(memory_format=torch.channels_last)).sigmoid().numpy()
        chances = (maps[0] + maps[1, :, ::-1]) / 2 if mirrored else maps[0]
        _, labels, _, _ = cv2.connectedComponentsWithStats((chances > _PRESENT).astype(np.uint8))
        scale = square.width * STRIDE / LOOK
        spots = []
        for label in range(1, labels.max() + 1):
            near = cv2.dilate((labels == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            weights = np.where(near & ((labels == label) | (labels == 0)), chances, 0.0)
            rows, columns = np.indices(weights.shape)
            total = float(weights.sum())
            x, y = ((weights * places).sum() / total + 0.5 for places in (columns, rows))
            diameter = 2 * np.sqrt(total / np.pi)
            spots.append(
                _Spot(square.x + x * scale, square.y + y * scale, diameter * scale, total, float(weights.max()))
            )
        return sorted(spots, key=_weight, reverse=True)


@lru_cache(1)
def localiser() -> Localiser:
    """The localiser that comes with the package.

    Raises:
        CheckpointError: its weights are missing or damaged.
    """
    return Localiser(load_localiser())


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """Within, torch computes in this thread alone: the threads that read photographs share the cores already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shrunk(image: NDArray[np.uint8], smaller: int) -> NDArray[np.uint8]:
    """A photograph (H, W, 3) as (H // smaller, W // smaller, 3), each pixel the mean of a square of them."""
    if smaller == 1:
        return image
    height, width = (length // smaller for length in image.shape[:2])
    whole = image[: height * smaller, : width * smaller]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _weight(spot: _Spot) -> float:
    return spot.total * spot.surest


def _likely(spots: list[_Spot]) -> list[_Spot]:
    """Those of the first look's spots, the likeliest first, that may be the disc."""
    return [spot for spot in spots if spot.surest >= _SURE and _weight(spot) > _RIVAL * _weight(spots[0])][:_RIVALS]


def _near(spot: _Spot | FoundDisc, other: _Spot | FoundDisc) -> bool:
    """Whether two looks show the same disc."""
    apart = np.hypot(spot.x - other.x, spot.y - other.y)
    return bool(apart < 0.75 * max(spot.diameter, other.diameter) and 0.4 < spot.diameter / other.diameter < 2.5)
