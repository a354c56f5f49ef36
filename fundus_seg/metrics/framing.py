"""Framing: how large the disc stands in its photograph, as a share of the frame's side.

A network draws well only what is framed as its training photographs were. So a checkpoint keeps the framing of these,
and `predict` compares the discs that it draws with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TAIL = 0.01
"""Share of the training photographs that lies below `low`, and above `high`: odd masks set no limits."""
_TOLERANCE = 1.25
"""Factor beyond the limits that is still as in training. Discs of REFUGE's crops are .46 to .77 of the side, those of
Drishti-GS .59 to .95: with this factor a network trained on the latter is warned of 1 % of the former, and of every
whole photograph (.15 to .24)."""


def disc_framing(disc: NDArray[np.generic]) -> float:
    """Diameter of the circle that has the disc's area, divided by the side of the square that has the frame's.

    Both areas scale alike when a frame is resized to a square, so the ratio is the same before and after.

    Args:
        disc: (H, W) mask of the whole disc, cup included: boolean, or of 0 and 1.

    Returns:
        0 for an empty disc, 1.13 for one that fills the frame.
    """
    return math.sqrt(4 / math.pi * (np.count_nonzero(disc) / disc.size))


@dataclass(frozen=True)
class Framing:
    """The framing of a network's training photographs: 98 % of them lie between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse limits that no photographs have.

        Raises:
            ValueError: they are not 0 < low <= high.
        """
        if not 0 < self.low <= self.high < math.inf:
            raise ValueError(f"framing of {self.low} to {self.high}")

    @classmethod
    def of(cls, discs: NDArray[np.generic]) -> Framing | None:
        """The framing of photographs with these discs, masks (N, H, W); None if all of them are empty."""
        ratios = np.array([disc_framing(disc) for disc in discs if disc.any()])
        if not ratios.size:
            return None
        low, high = np.quantile(ratios, [_TAIL, 1 - _TAIL])
        return cls(round(float(low), 4), round(float(high), 4))

    @property
    def middle(self) -> float:
        """The ratio as far from `low` as from `high`, as factors."""
        return math.sqrt(self.low * self.high)

    def holds(self, framing: float) -> bool:
        """Whether a disc with this ratio is framed as in training."""
        return self.low / _TOLERANCE <= framing <= self.high * _TOLERANCE
