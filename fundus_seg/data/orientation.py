"""Test how NIfTI files lie on pictures (PNG, JPEG ...): masks on masks, or masks on photographs.

A picture has one way to be read. What the axes of a NIfTI mean depends on the tool that wrote it: the same array, saved
with another affine, is read mirrored or turned. Masks of the same eyes show which reading is right, and so does the
disc on a photograph, since it is brighter than what surrounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.errors import DataError

_Masks = NDArray[Any]

TURNS: dict[str, Callable[[_Masks], _Masks]] = {
    "as they are read": lambda masks: masks,
    "mirrored left to right": lambda masks: masks[:, :, ::-1],
    "mirrored top to bottom": lambda masks: masks[:, ::-1],
    "turned by 180 degrees": lambda masks: masks[:, ::-1, ::-1],
    "with rows and columns exchanged": lambda masks: masks.swapaxes(1, 2),
    "turned by 90 degrees to the left": lambda masks: np.rot90(masks, 1, (1, 2)),
    "turned by 90 degrees to the right": lambda masks: np.rot90(masks, -1, (1, 2)),
    "with rows and columns exchanged, then turned by 180 degrees": lambda masks: masks.swapaxes(1, 2)[:, ::-1, ::-1],
}
"""The eight ways in which an array may lie on a picture, of masks (2, H, W)."""

_MOST_LEFT = 0.6  # what another way must leave at most of the disagreement (1 - Dice)
_NEARLY_ALL, _MOST = 0.9, 0.75  # share of the cases that agree better the other way
_LEAST_GAIN = 0.03  # of the mean Dice; more where there are fewer cases
_GAIN_OF_ONE_CASE = 0.2
_LEAST_CASES, _STANDARD_ERRORS, _NO_DOUBT = 5, 3.0, 0.2  # of the gain in correlation of discs and photographs
_SIDE = 64  # pixels of the small pictures that are correlated


class Turns:
    """Collects how well masks agree in each of the eight ways; threads may share it."""

    def __init__(self) -> None:
        self.agreement: list[list[float]] = []

    def add(self, nifti: _Masks, picture: _Masks) -> None:
        """Compare the masks (2, H, W) of one case, by the mean Dice of the structures that the picture shows."""
        shown = [structure for structure, mask in enumerate(picture) if mask.any()]
        if shown and nifti.any():
            turned = (turn(nifti) for turn in TURNS.values())
            self.agreement.append([_dice(each[shown], picture[shown]) for each in turned])

    def refuse_other(self) -> str | None:
        """What to say where another way than the one in which they are read fits better, but not much.

        Raises:
            DataError: another way fits much better, in nearly all cases.
        """
        if not self.agreement:
            return None
        as_read, best, better, way = _compared(self.agreement)
        gain, cases = best - as_read, len(self.agreement)
        text = (
            f"masks agree with the others better {way} (mean Dice {100 * best:.1f}) than as their header says "
            f"({100 * as_read:.1f}), in {better:.0%} of {cases} cases"
        )
        much = 1 - best <= _MOST_LEFT * (1 - as_read) and gain > max(_LEAST_GAIN, _GAIN_OF_ONE_CASE / cases)
        if much and better >= _NEARLY_ALL:
            raise DataError(f"{text}: the header does not say how they lie; {_FIX}")
        return f"{text}; look at some" if better >= _MOST and gain > _LEAST_GAIN else None


_FIX = (
    "export them as PNG, or labels (height, width) as "
    "nibabel.Nifti1Image(labels.T[..., None], numpy.diag([-1, -1, 1, 1]))"
)


def brightness(image: NDArray[np.uint8], disc: NDArray[np.bool_]) -> list[float]:
    """How well a disc (H, W) lies on the bright part of its photograph (H, W, 3), in each of the eight ways.

    Returns:
        The correlations of the disc with the photograph's greys; none if either is flat.
    """
    side = (_SIDE, _SIDE)
    grey = cv2.resize(image.mean(axis=2, dtype=np.float32), side, interpolation=cv2.INTER_AREA)
    small = cv2.resize(disc.astype(np.float32), side, interpolation=cv2.INTER_AREA)
    if grey.std() < 1 or not small.std():
        return []
    return [float(np.corrcoef(grey.ravel(), turn(small[None]).ravel())[0, 1]) for turn in TURNS.values()]


def misfit(found: Sequence[Sequence[float]]) -> tuple[str, bool] | None:
    """Whether the discs of a split lie better on the photographs in another way than in which they are read.

    In crops around the disc little tells the ways apart: on Drishti-GS and REFUGE the mean correlation falls by 0.00 to
    0.03 when discs are turned. So the gain of each case counts, not its size alone. Read rightly, no split of these
    gains in any way.

    Args:
        found: the `brightness` of each case.

    Returns:
        What to say, and whether there is no doubt; None if they lie well, or if there are too few cases to tell.
    """
    values = np.array([each for each in found if each])  # (cases, 8)
    if len(values) < _LEAST_CASES:
        return None
    as_read, best, better, way = _compared(values)
    gains = values[:, list(TURNS).index(way)] - values[:, 0]
    if gains.mean() <= _STANDARD_ERRORS * gains.std(ddof=1) / len(gains) ** 0.5 or better < _MOST:
        return None
    text = (
        f"the discs lie on the bright part of their photographs better {way} (mean correlation {best:.2f}) than as "
        f"their header says ({as_read:.2f}), in {better:.0%} of {len(values)} cases; {_FIX}"
    )
    return text, best - as_read > _NO_DOUBT


def _compared(found: Sequence[Sequence[float]] | NDArray[np.float64]) -> tuple[float, float, float, str]:
    """The mean as the masks are read, the best mean of all ways, the share of cases that gain, and the best way."""
    values = np.array(found)  # (cases, 8)
    means = values.mean(axis=0)
    best = int(means.argmax())
    return means[0], means[best], float(np.mean(values[:, best] > values[:, 0])), list(TURNS)[best]


def _dice(masks: _Masks, others: _Masks) -> float:
    """The mean Dice over structures (S, H, W); 0 for frames of different size."""
    if masks.shape != others.shape:
        return 0.0
    both, sizes = (masks & others).sum(axis=(1, 2)), masks.sum(axis=(1, 2)) + others.sum(axis=(1, 2))
    return float(np.mean(2 * both / sizes))
