"""Measurements of cases: the rows that every evaluation file is made of, and how alike the masks of its cases are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.dataset import BOTH, Truth
from fundus_seg.data.files import Case
from fundus_seg.evaluation.alike import Alike, SeenMasks
from fundus_seg.evaluation.metric_table import METRICS, distances
from fundus_seg.inference.postprocess import clean_by
from fundus_seg.metrics.anatomy import component_count, hole_count, pixels_outside
from fundus_seg.metrics.clinical import mask_sizes
from fundus_seg.metrics.surface import SurfaceDistances, surface_distances
from fundus_seg.progress import Advance
from fundus_seg.protocol import STRUCTURES, Scoring, spacing
from fundus_seg.runs.atomic import csv_text

TRUTH_SIZES = ("truth_pixels", "truth_rows", "truth_columns")
SIZES = ("prediction_pixels", "prediction_rows", "prediction_columns", *TRUTH_SIZES)
"""`mask_sizes` of prediction and truth in pixels, of which cup-to-disc ratios are made; 0 where a mask is empty, and
NaN for a true mask that nobody has annotated."""
READER_FIELDS = ("reader", "other")
"""Columns of scores by reader: who drew the truth and, of readers against each other, who drew the prediction."""
FAULTS = ("components", "holes", "outside_disc")
"""Faults of the prediction before post-processing, which would hide them: the numbers of its 8-connected components, of
its holes, and of its pixels outside the predicted disc."""


@dataclass(frozen=True)
class MaskPair:
    """What a metric is computed from: one structure of one case.

    Attributes:
        predicted: (H, W) bool.
        true: (H, W) bool.
        distances: the distances between their borders, in 800-pixel units.
        scoring: the protocol.
    """

    predicted: NDArray[np.bool_]
    true: NDArray[np.bool_]
    distances: SurfaceDistances
    scoring: Scoring


def score_cases(
    predictions: Iterable[tuple[Case, NDArray[np.bool_], Truth]], scoring: Scoring, advance: Advance
) -> tuple[str, dict[str, Alike]]:
    """The CSV of the case records, and how alike the masks of different cases are.

    Args:
        predictions: each case with its predicted masks before post-processing, (2, H, W) bool on its own frame, and its
            true masks; with those of each reader after another, where these are the truth.
        scoring: the protocol.
        advance: called after each case.
    """
    rows: list[dict[str, Any]] = []
    seen = SeenMasks()
    for case, raw, truth in predictions:
        prediction = clean_by(scoring, raw)
        identity = case_identity(case, scoring)
        if truth.reader:
            identity["reader"] = truth.reader
        else:  # what several readers drew of one case is no different cases
            seen.add(prediction, truth.masks)
        rows += score_case(prediction, truth.masks, raw=raw, scoring=scoring, annotated=truth.annotated, **identity)
        advance()
    return csv_text(rows), seen.alike()


def case_identity(case: Case, scoring: Scoring) -> dict[str, Any]:
    """The columns that say of which case a row is, and by which protocol; no patient where none is known."""
    identity = {"protocol": scoring.digest(), "domain": case.domain, "case": case.name}
    return identity if case.patient is None else {**identity, "patient": case.patient}


def score_case(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    scoring: Scoring,
    raw: NDArray[np.bool_] | None = None,
    annotated: tuple[bool, bool] = BOTH,
    **identity: Any,
) -> list[dict[str, Any]]:
    """One row per structure: `identity` (domain, case ...), frame, spacing, SIZES, FAULTS and METRICS.

    Args:
        prediction: (2, H, W) bool, channels ("disc", "cup").
        truth: the same.
        scoring: the protocol; distances are in 800-pixel units, overlaps in [0, 1].
        raw: the prediction before post-processing, whose FAULTS are counted; None where there was none.
        annotated: whether each structure of the truth is annotated.
        identity: columns that say what the scores are of.

    NaN stands for what is undefined: every score where the truth is empty, distances also where the prediction is; and
    sizes of the truth as well where it is not annotated.
    `fundus_seg.evaluation.policy` turns rows into what tables and statistics count.
    """
    height, width = truth.shape[1:]
    pitch = spacing(height, width)
    raw = prediction if raw is None else raw
    rows = []
    for structure, predicted, thresholded, true, told in zip(
        STRUCTURES, prediction, raw, truth, annotated, strict=True
    ):
        masks = {"prediction": predicted, "truth": true}
        sizes: dict[str, float] = {
            f"{side}_{size}": n for side, mask in masks.items() for size, n in mask_sizes(mask).items()
        }
        faults = (component_count(thresholded), hole_count(thresholded), pixels_outside(thresholded, raw[0]))
        pair = MaskPair(predicted, true, surface_distances(predicted, true, spacing=pitch), scoring)
        scores = {name: metric.score(pair) for name, metric in METRICS.items()}
        if scoring.empty_check == "cup" and not prediction[1].any():
            scores |= dict.fromkeys(distances(), math.nan)
        if not told:
            sizes |= dict.fromkeys(TRUTH_SIZES, math.nan)
            scores = dict.fromkeys(scores, math.nan)
        rows.append(
            {
                **identity,
                "structure": structure,
                "height": height,
                "width": width,
                "spacing_y": pitch[0],
                "spacing_x": pitch[1],
                **sizes,
                **dict(zip(FAULTS, faults, strict=True)),
                **scores,
            }
        )
    return rows
