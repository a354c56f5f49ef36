"""One drawn case, and what every distance and overlap says of it: the computed parts of docs/distances.md."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from made_table import table
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from fundus_seg.config import load_scoring
from fundus_seg.evaluation.score_case import score_case
from fundus_seg.metrics import (
    average_surface_distance,
    average_symmetric_surface_distance,
    dice,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    jaccard,
    normalized_surface_dice,
    surface_distances,
)
from fundus_seg.protocol import FRAME, Scoring

SIDE = 12


def masks() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Prediction and truth, (12, 12): a square of 6, and the same with a streak of 4 on its right side."""
    truth = np.zeros((SIDE, SIDE), bool)
    truth[3:9, 1:7] = True
    prediction = truth.copy()
    prediction[5, 7:11] = True
    return prediction, truth


def drawing() -> str:
    """Both masks, then the distance from each one's border pixels to the other's border, side by side."""
    prediction, truth = masks()
    shown = np.select([prediction & truth, prediction, truth], ["#", "p", "t"], ".")
    panels = (shown, _distances(prediction, truth), _distances(truth, prediction))
    lines = ["masks           prediction to truth   truth to prediction"]
    lines += [f"{a:<16}{b:<22}{c}" for a, b, c in zip(*(map("".join, panel) for panel in panels), strict=True)]
    return "\n".join(["```", *lines, "```"])


def _distances(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.str_]:
    away = distance_transform_edt(~_border(other))
    return np.where(_border(mask), np.char.mod("%d", away), ".")


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~binary_erosion(mask)  # by the 4-connected cross


def distances() -> str:
    """Every distance of the drawing, with its arithmetic and our function."""
    d = surface_distances(*masks())
    back = np.percentile(d.truth_to_prediction, 95)
    rows = [
        ("HD", hausdorff, "the largest of all 43"),
        (
            "HD95, both directions pooled",
            hausdorff95,
            "place 0.95 · 42 = 39.9 of 43; d₃₉ = 1, d₄₀ = 2; 1 + 0.9 · 1",
        ),
        (
            "HD95-max, the larger direction",
            hausdorff95_max,
            f"place 0.95 · 22 = 20.9 of 23; d₂₀ = 2, d₂₁ = 3; 2 + 0.9 · 1 (the other direction has {back:.2f})",
        ),
        ("ASD, prediction to truth", average_surface_distance, "(1 + 2 + 3 + 4) / 23"),
        ("ASSD", average_symmetric_surface_distance, "(10 + 1) / 43"),
    ]
    return table(
        ("measure", "value [px]", "arithmetic", "function"),
        [(what, f"{measure(d):.4g}", how, f"`{measure.__name__}`") for what, measure, how in rows],
        numbers=1,
    )


def overlaps() -> str:
    """Every overlap of the drawing, with its arithmetic and our function."""
    d = surface_distances(*masks())
    rows = [
        (
            "NSD at 1 px",
            normalized_surface_dice(d, 1),
            "(43 − 3) / 43: all but the 2, 3 and 4",
            "normalized_surface_dice",
        ),
        ("DSC", dice(*masks()), "2 · 36 / (36 + 40)", "dice"),
        ("Jaccard", jaccard(*masks()), "36 / 40", "jaccard"),
    ]
    return table(
        ("measure", "value [%]", "arithmetic", "function"),
        [(what, f"{100 * value:.2f}", how, f"`{name}`") for what, value, how, name in rows],
        numbers=1,
    )


def other_meanings() -> str:
    """What other directions, other means, another frame and the released code make of the drawing."""
    d = surface_distances(*masks())
    there, back = d.prediction_to_truth.mean(), d.truth_to_prediction.mean()
    photograph = tuple(np.stack([mask, mask]) for mask in masks())
    disc, _ = score_case(*photograph, scoring=Scoring())
    released, _ = score_case(*photograph, scoring=load_scoring("released-code"))
    rows = [
        ("ASD from truth to prediction [px]", "1 / 20", f"{back:.2f}"),
        (
            "ASSD as the mean of the two directions' means, as in MedPy 0.4.0 [px]",
            "(10 / 23 + 1 / 20) / 2",
            f"{(there + back) / 2:.4f}",
        ),
        ("HD, were the drawing a photograph [px of 800]", "4 · 800 / 12", f"{disc['hd']:.2f}"),
        ("DSC of the released code [%]", "(2 · 36 + 1) / (36 + 40 + 1)", f"{100 * released['dsc']:.2f}"),
        ("largest HD in a frame of 800x800 [px]", "799 · √2", f"{(FRAME - 1) * math.sqrt(2):.0f}"),
    ]
    return table(("measure", "arithmetic", "value"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "drawing": drawing,
    "distances": distances,
    "overlaps": overlaps,
    "other-meanings": other_meanings,
}
