"""Test how masks of one kind of file lie on masks of another: NIfTI against pictures.

A picture has one way to be read. What the axes of a NIfTI mean depends on the tool that wrote it: the same array, saved
with another affine, is read mirrored or turned. Masks of the same eyes show which reading is right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fundus_seg.errors import DataError

_Masks = NDArray[np.bool_]

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
        agreement = np.array(self.agreement)  # (cases, 8)
        as_read, *_ = means = agreement.mean(axis=0)
        best = int(means.argmax())
        gain, cases = means[best] - as_read, len(agreement)
        better = np.mean(agreement[:, best] > agreement[:, 0])
        name = list(TURNS)[best]
        text = (
            f"masks agree with the others better {name} (mean Dice {100 * means[best]:.1f}) than as their header says "
            f"({100 * as_read:.1f}), in {better:.0%} of {cases} cases"
        )
        much = 1 - means[best] <= _MOST_LEFT * (1 - as_read) and gain > max(_LEAST_GAIN, _GAIN_OF_ONE_CASE / cases)
        if much and better >= _NEARLY_ALL:
            raise DataError(
                f"{text}: the header does not say how they lie; export them as PNG, or labels (height, width) as "
                "nibabel.Nifti1Image(labels.T[..., None], numpy.diag([-1, -1, 1, 1]))"
            )
        return f"{text}; look at some" if better >= _MOST and gain > _LEAST_GAIN else None


def _dice(masks: _Masks, others: _Masks) -> float:
    """The mean Dice over structures (S, H, W); 0 for frames of different size."""
    if masks.shape != others.shape:
        return 0.0
    both, sizes = (masks & others).sum(axis=(1, 2)), masks.sum(axis=(1, 2)) + others.sum(axis=(1, 2))
    return float(np.mean(2 * both / sizes))
