"""How alike the masks of different cases are: predictions beside true masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fundus_seg.metrics.pairwise import mean_pairwise_iou, on_common_frame
from fundus_seg.protocol import STRUCTURES


@dataclass(frozen=True)
class Alike:
    """Mean pairwise IoU of the masks of different cases, on a common frame, in [0, 1].

    Attributes:
        predictions: of the predicted masks, after post-processing, of the cases whose truth is not empty.
        truths: of the true masks of the same cases.
    """

    predictions: float
    truths: float

    @property
    def hardly_varies(self) -> bool:
        """Whether predictions vary less than half as much as true masks: 1 - IoU is how much masks vary."""
        return 1 - self.predictions < (1 - self.truths) / 2


class SeenMasks:
    """Remembers the masks of the cases that are scored, each on a small common frame."""

    def __init__(self) -> None:
        self._seen: list[NDArray[np.bool_]] = []

    def add(self, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Remember the masks of one case, (2, H, W) each."""
        self._seen.append(np.stack([on_common_frame(prediction), on_common_frame(truth)]))

    def alike(self) -> dict[str, Alike]:
        """By structure; without those of which fewer than two cases have a true mask."""
        found = {}
        for number, structure in enumerate(STRUCTURES):
            there = [masks[:, number] for masks in self._seen if masks[1, number].any()]
            if len(there) > 1:
                predictions, truths = (mean_pairwise_iou([masks[side] for masks in there]) for side in (0, 1))
                found[structure] = Alike(predictions, truths)
        return found
