"""Framing: how large the disc stands in its photograph, as a share of the frame's side.

A network draws well only what is framed as its training photographs were. So a checkpoint keeps the framing of these,
and `predict` compares the discs that it draws with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TAIL = 0.01
"""Share of the training photographs that lies below `low`, and above `high`: odd masks set no limits."""
_TOLERANCE = 1.25
"""Factor beyond the limits that is still as in training. Discs of REFUGE's crops are .46 to .77 of the side, those of
Drishti-GS .59 to .95: with this factor a network trained on the latter is warned of 1 % of the former, and of every
whole photograph (.15 to .24)."""

_MOST_FACTOR = 2.0
"""How often larger the median framing of one domain may be than that of another before `odd_framings` tells of it.
Crops of Drishti-GS and REFUGE differ by 1.2, the phantom's domains by 1.2, and equal crops of REFUGE's two cameras by
1.3, as their frames of 2124 and 1634 pixels do. A whole photograph of REFUGE (.15 to .24) and its crop of 800 pixels
differ by 2 to 2.6."""
WHOLE, _CROP = 0.25, 0.35
"""Below the first, a median framing is that of whole photographs: those of REFUGE have .15 to .24, and a disc of 387
pixels in Drishti-GS's frame of 2047x1760 has .20. Above the second it is that of crops about the disc: 800 pixels about
a disc of 294, the median of REFUGE's smaller frames, have .37. Between the two nothing is said."""


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


def domain_framings(discs: Mapping[str, NDArray[np.generic]]) -> dict[str, dict[str, float]]:
    """`low`, `median` and `high` of the framing of each domain, where not all discs are empty.

    Args:
        discs: by domain, masks (N, H, W); `low` and `high` are those of `Framing.of`.
    """
    found = {}
    for domain, masks in discs.items():
        if framing := Framing.of(masks):
            median = np.median([disc_framing(disc) for disc in masks if disc.any()])
            found[domain] = {"low": framing.low, "median": round(float(median), 4), "high": framing.high}
    return found


def odd_framings(framings: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """What is odd about the framings of several domains or splits beside each other, in one line; or nothing.

    Either some are whole photographs and others crops about the disc, or their medians differ by more than a factor of
    two. A network trained on the one draws badly on the other, whatever the cameras do.

    Args:
        framings: the `disc_framing` of each photograph with a disc, by the name of its domain or split.
    """
    medians = {name: float(np.median(values)) for name, values in framings.items() if len(values)}
    if not medians:
        return
    ordered = sorted(medians, key=lambda name: medians[name])
    least, most = medians[ordered[0]], medians[ordered[-1]]
    mixed = least < WHOLE and most > _CROP
    if mixed or most > _MOST_FACTOR * least:
        shares = ", ".join(f"{name} {medians[name]:.2f}" for name in ordered)
        limit = f"below {WHOLE} whole photographs, above {_CROP} crops" if mixed else f"more than {_MOST_FACTOR:g}"
        yield (
            f"the disc's diameter as a share of the frame differs by a factor of {most / least:.1f} ({limit}): median "
            f"of {shares}; crop all domains alike about the disc, or none"
        )
