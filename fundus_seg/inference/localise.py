"""Find the optic disc in a whole photograph.

The field of view is found by its light. The network (`fundus_seg.models.localiser`) looks at the square around it, and
then closer, at a square around what it has found there, in which the disc has one size, whatever the camera. The close
look measures the disc; it is repeated where that changes much, and a disc that it does not see is not found.
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
from fundus_seg.data.field import field_of_view
from fundus_seg.inference.roi import NO_EYE, TWO_DISCS
from fundus_seg.models import scale_photographs
from fundus_seg.models.localiser import LOOK, STRIDE, LocaliserNet, load_localiser

CLOSE = 0.5
"""Diameter of the disc as a share of a close look's square, if the look before has measured it well."""
_LOOKS, _STEADY = 4, 1.15
"""Close looks at most; there is no further one once the disc is not larger than was thought, by this factor."""
_PRESENT, _SURE = 0.5, 0.7
"""Probability of a disc's pixels, and of the surest of them."""
_RIVAL = 0.5
"""A second disc that is so likely beside the first leaves it open which of them it is."""


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
        field = field_of_view(image)
        first = Box.around(field.x + field.width / 2, field.y + field.height / 2, max(field.width, field.height))
        spots = self._look(image, first)
        if not spots or spots[0].surest < _SURE:
            return NO_EYE
        if len(spots) > 1 and spots[1].total * spots[1].surest > _RIVAL * spots[0].total * spots[0].surest:
            return TWO_DISCS
        best = spots[0]
        for _ in range(_LOOKS):
            square = Box.around(best.x, best.y, best.diameter / CLOSE)
            seen = [spot for spot in self._look(image, square) if _near(spot, best)]
            if not seen or seen[0].surest < _SURE:
                return NO_EYE
            before, best = best, seen[0]
            if best.diameter < _STEADY * before.diameter:
                break
        return FoundDisc(best.x, best.y, best.diameter, best.surest)

    @torch.inference_mode()
    def _look(self, image: NDArray[np.uint8], square: Box) -> list[_Spot]:
        """What may be a disc in a square of the photograph, the likeliest first; places are the photograph's."""
        seen = cv2.resize(square.cut(image), (LOOK, LOOK), interpolation=cv2.INTER_AREA)
        batch = scale_photographs(torch.from_numpy(seen).permute(2, 0, 1)[None])
        with _single_thread():
            chances = self.network(batch.contiguous(memory_format=torch.channels_last))[0].sigmoid().numpy()
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
        return sorted(spots, key=lambda spot: spot.total * spot.surest, reverse=True)


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


def _near(spot: _Spot, other: _Spot) -> bool:
    """Whether two looks show the same disc."""
    apart = np.hypot(spot.x - other.x, spot.y - other.y)
    return bool(apart < 0.75 * max(spot.diameter, other.diameter) and 0.4 < spot.diameter / other.diameter < 2.5)
