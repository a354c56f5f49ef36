"""Measurements of one case: the rows that every evaluation file is made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.metrics import (
    average_surface_distance,
    average_symmetric_surface_distance,
    component_count,
    dice,
    extents,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    hole_count,
    jaccard,
    normalized_surface_dice,
    pixels_outside,
    surface_distances,
)
from fundus_seg.protocol import NSD_TOLERANCE, STRUCTURES, Scoring, spacing

SIZES = ("prediction_pixels", "prediction_rows", "prediction_columns", "truth_pixels", "truth_rows", "truth_columns")
"""Area and upright extents in pixels: all that the cup-to-disc ratios are made of, and 0 where a mask is empty."""
FAULTS = ("components", "holes", "outside_disc")
"""Of the prediction before post-processing, which would hide them: 8-connected components, holes, pixels of it outside
the predicted disc."""
OVERLAPS = ("dsc", "jaccard", "nsd")
DISTANCES = ("hd", "hd95", "hd95_max", "asd", "assd")
SCORES = (*OVERLAPS, *DISTANCES)


def score_case(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    scoring: Scoring,
    raw: NDArray[np.bool_] | None = None,
    **identity: Any,
) -> list[dict[str, Any]]:
    """One row per structure: `identity` (domain, case ...), frame, spacing, SIZES, FAULTS and SCORES.

    Args:
        prediction: (2, H, W) bool, channels ("disc", "cup").
        truth: the same.
        scoring: the protocol; distances are in 800-pixel units, overlaps in [0, 1].
        raw: the prediction before post-processing, whose FAULTS are counted; None where there was none.
        identity: columns that say whose scores these are.

    NaN stands for what is undefined: every score where the truth is empty, distances also where the prediction is.
    `fundus_seg.evaluation.policy` turns rows into what tables and statistics count.
    """
    height, width = truth.shape[1:]
    pitch = spacing(height, width)
    raw = prediction if raw is None else raw
    rows = []
    for structure, predicted, thresholded, true in zip(STRUCTURES, prediction, raw, truth, strict=True):
        sizes = (np.count_nonzero(predicted), *extents(predicted), np.count_nonzero(true), *extents(true))
        faults = (component_count(thresholded), hole_count(thresholded), pixels_outside(thresholded, raw[0]))
        scores = _scores(predicted, true, pitch, scoring)
        if scoring.empty_check == "cup" and not prediction[1].any():
            scores |= dict.fromkeys(DISTANCES, math.nan)
        rows.append(
            {
                **identity,
                "structure": structure,
                "height": height,
                "width": width,
                "spacing_y": pitch[0],
                "spacing_x": pitch[1],
                **dict(zip(SIZES, sizes, strict=True)),
                **dict(zip(FAULTS, faults, strict=True)),
                **scores,
            }
        )
    return rows


def _scores(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], pitch: tuple[float, float], scoring: Scoring
) -> dict[str, float]:
    distances = surface_distances(predicted, true, spacing=pitch)
    return {
        "dsc": dice(predicted, true, smooth=scoring.dice_smoothing) if true.any() else math.nan,
        "jaccard": jaccard(predicted, true),
        "nsd": normalized_surface_dice(distances, NSD_TOLERANCE),
        "hd": hausdorff(distances),
        "hd95": hausdorff95(distances),
        "hd95_max": hausdorff95_max(distances),
        "asd": average_surface_distance(distances),
        "assd": average_symmetric_surface_distance(distances),
    }
