"""Turn probabilities into masks: threshold, keep the largest component, fill holes; on demand, make them anatomical.

The steps, their order and their connectivity are those of the released TVConv code. Each structure is processed on its
own. A component is 8-connected (`skimage.measure.label` counts diagonal neighbours by default); a hole is background
that no 4-connected path of background joins to the frame (`scipy.ndimage.binary_fill_holes`).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.inference.outline import smooth_outline
from fundus_seg.protocol import Scoring


def postprocess(
    probabilities: NDArray[np.floating], *, threshold: float = 0.75, largest: bool = True, fill: bool = True
) -> NDArray[np.bool_]:
    """Masks of both structures: probability > threshold, then the largest component, then its holes filled.

    Args:
        probabilities: (2, H, W), after the sigmoid, structures ("disc", "cup").
        threshold: a pixel belongs to a mask when its probability is above this.
        largest: whether to keep only the largest component.
        fill: whether to fill the holes.

    Returns:
        (2, H, W) boolean. The cup is not forced into the disc.

    Raises:
        ValueError: The array is not (2, H, W).
    """
    if probabilities.ndim != 3 or len(probabilities) != 2:
        raise ValueError(f"probabilities must be (2, H, W), got shape {probabilities.shape}")
    return clean(probabilities > threshold, largest=largest, fill=fill)


def clean_by(scoring: Scoring, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thresholded masks (2, H, W) after the post-processing of a scoring protocol."""
    cleaned = clean(masks, largest=scoring.largest_component, fill=scoring.fill_holes)
    return anatomical(cleaned) if scoring.anatomical else cleaned


def anatomical(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks (2, H, W) as anatomy has them: a disc and a cup in it, each in one piece, without holes, smoothly outlined.

    The largest component of each, its holes filled, gets the outline of `outline.smooth_outline`; of the cup, what lies
    in the disc, before and after. An empty mask stays empty.
    """
    disc = _rounded(masks[0])
    return np.stack([disc, clean((_rounded(masks[1] & disc) & disc)[None])[0]])


def _rounded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component (H, W) with a smooth outline; a thin part may break off in pixels, and is left out."""
    return clean(smooth_outline(clean(mask[None])[0])[None])[0]


def clean(masks: NDArray[np.bool_], *, largest: bool = True, fill: bool = True) -> NDArray[np.bool_]:
    """`postprocess` without its threshold: the largest component of each of the (S, H, W) masks, its holes filled."""
    cleaned = np.zeros_like(masks)
    for mask, into in zip(masks, cleaned, strict=True):
        # Both steps leave background around the mask as it is, so they work on its bounding box alone.
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8, casting="safe"))
        box = np.s_[top : top + height, left : left + width]
        part = largest_component(mask[box]) if largest and width else mask[box]
        into[box] = fill_holes(part) if fill and width else part
    return cleaned


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The 8-connected component with the most pixels; of equal ones, the one that comes first row by row.

    Args:
        mask: (H, W) boolean. An empty mask stays empty.

    Raises:
        TypeError: The mask is not boolean.
    """
    pixels = mask.astype(np.uint8, casting="safe")
    count, labels = cv2.connectedComponents(pixels, connectivity=8)
    if count <= 2:  # the background and at most one component
        return mask.copy()
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    tied = np.flatnonzero(areas == areas.max())
    # OpenCV promises no order of its labels, so a tie is settled on the pixels.
    keep = tied[0] if tied.size == 1 else labels.flat[np.isin(labels, tied).argmax()]
    return labels == keep


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with every hole filled: background that no 4-connected path of background joins to the frame.

    Args:
        mask: (H, W) boolean.

    Raises:
        TypeError: The mask is not boolean.
    """
    # A margin of background joins all background that touches the frame, so one flood from the corner finds all of it.
    flooded = cv2.copyMakeBorder(mask.astype(np.uint8, casting="safe"), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    outside = 2
    cv2.floodFill(flooded, None, (0, 0), outside, flags=4)
    return flooded[1:-1, 1:-1] != outside
