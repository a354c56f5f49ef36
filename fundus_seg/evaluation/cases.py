"""Scores of one case: the rows that every evaluation file is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.metrics import (
    average_surface_distance,
    average_symmetric_surface_distance,
    dice,
    hausdorff,
    hausdorff95,
    surface_distances,
)
from fundus_seg.protocol import STRUCTURES, Scoring, spacing

DISTANCES = ("hd", "hd95", "asd", "assd")
SCORES = ("dsc", *DISTANCES)


def score_case(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], *, scoring: Scoring, **identity: Any
) -> list[dict[str, Any]]:
    """One row per structure: `identity` (domain, case ...), frame, pixel counts, dsc and the distances.

    Args:
        prediction: (2, H, W) bool, channels ("disc", "cup").
        truth: the same.
        scoring: the protocol; distances are in 800-pixel units.
        identity: columns that say whose scores these are.

    NaN stands for what is undefined: dsc where the truth is empty, distances where the truth or the prediction is.
    Tables exclude the first and count `scoring.empty_distance` for the second.
    """
    height, width = truth.shape[1:]
    pitch = spacing(height, width)
    cup_empty = not prediction[STRUCTURES.index("cup")].any()
    rows = []
    for structure, predicted, true in zip(STRUCTURES, prediction, truth, strict=True):
        values: Mapping[str, float] = _distances(predicted, true, pitch)
        if scoring.hausdorff == "pooled-95":
            values = {**values, "hd": values["hd95"]}
        if scoring.empty_check == "cup" and cup_empty:
            values = dict.fromkeys(DISTANCES, math.nan)
        rows.append(
            {
                **identity,
                "structure": structure,
                "height": height,
                "width": width,
                "spacing_y": pitch[0],
                "spacing_x": pitch[1],
                "prediction_pixels": int(predicted.sum()),
                "truth_pixels": int(true.sum()),
                "dsc": dice(predicted, true, smooth=scoring.dice_smoothing) if true.any() else math.nan,
                **values,
            }
        )
    return rows


def _distances(predicted: NDArray[np.bool_], true: NDArray[np.bool_], pitch: tuple[float, float]) -> dict[str, float]:
    distances = surface_distances(predicted, true, spacing=pitch)
    return {
        "hd": hausdorff(distances),
        "hd95": hausdorff95(distances),
        "asd": average_surface_distance(distances),
        "assd": average_symmetric_surface_distance(distances),
    }
