"""Anatomical faults of masks: several components, holes, a cup outside the disc, a disc that is cut, unusual ratios.

The connectivity is that of the post-processing: components are 8-connected, the background around them is 4-connected.
"""

from __future__ import annotations

import cv2
import numpy as np

from fundus_seg.metrics.clinical import vertical_cup_to_disc_ratio
from fundus_seg.metrics.overlap import Mask, bounding_box, check_frames

USUAL_RATIOS = (0.15, 0.9)
"""Vertical cup-to-disc ratios of the 422 eyes of Drishti-GS and REFUGE's training set, as their readers drew them, lie
within 0.16 and 0.90, eyes with advanced glaucoma among them."""

_LEAST_SHARE = 0.01
"""Smaller parts and holes, as shares of the whole structure, are no fault: threads and dots at a ragged border."""


def component_count(mask: Mask) -> int:
    """8-connected components of a (H, W) boolean mask; 0 if it is empty, 1 for a valid structure."""
    return cv2.connectedComponents(_padded_box(mask), connectivity=8)[0] - 1


def hole_count(mask: Mask) -> int:
    """Holes of a (H, W) boolean mask: 4-connected components of the background that do not reach the frame."""
    # The margin joins all background that reaches the frame into one component; label 0 is the mask.
    return cv2.connectedComponents(1 - _padded_box(mask), connectivity=4)[0] - 2


def pixels_outside(mask: Mask, container: Mask) -> int:
    """Number of pixels of one mask that are not in the other, such as those of the cup outside the disc.

    Raises:
        ValueError: The masks differ in shape, are not boolean or not two-dimensional.
    """
    check_frames(mask, container)
    return int(np.count_nonzero(mask & ~container))


def share_astray(mask: Mask) -> float:
    """Share of the pixels of a (H, W) mask that lie in other components than the largest one; 0 if it is empty."""
    sizes = np.bincount(cv2.connectedComponents(_padded_box(mask), connectivity=8)[1].ravel())[1:]
    return float(1 - sizes.max() / sizes.sum()) if sizes.size else 0.0


def share_of_holes(mask: Mask) -> float:
    """Pixels in the holes of a (H, W) mask, as a share of mask and holes together; 0 if it is empty."""
    labels = cv2.connectedComponents(1 - _padded_box(mask), connectivity=4)[1]
    whole = np.count_nonzero(labels != labels[0, 0])  # a corner of the margin, and so the background around the mask
    return 1 - np.count_nonzero(mask) / whole if whole else 0.0


def touches_edge(mask: Mask) -> bool:
    """Whether a (H, W) mask has a pixel in the first or last row or column: the frame may cut the structure."""
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def shape_faults(disc: Mask, cup: Mask) -> tuple[str, ...]:
    """What no anatomy explains in the shapes of a disc and a cup (H, W), before post-processing hides it.

    `disc_in_parts`, `cup_in_parts`: a hundredth of the structure, or more, lies apart from its largest component.
    `disc_with_holes`, `cup_with_holes`: a hundredth of the structure, or more, are holes.
    """
    shares = {"in_parts": share_astray, "with_holes": share_of_holes}
    return tuple(
        f"{name}_{fault}"
        for name, mask in (("disc", disc), ("cup", cup))
        for fault, share in shares.items()
        if share(mask) >= _LEAST_SHARE
    )


def is_one_piece(mask: Mask) -> bool:
    """Whether less than a hundredth of a (H, W) mask lies apart from its largest component, or is missing in holes."""
    return share_astray(mask) < _LEAST_SHARE and share_of_holes(mask) < _LEAST_SHARE


def is_usual_ratio(disc: Mask, cup: Mask) -> bool:
    """Whether the vertical cup-to-disc ratio is one of USUAL_RATIOS; an empty disc has none, and is no fault of it."""
    ratio = vertical_cup_to_disc_ratio(disc, cup)
    return not (ratio < USUAL_RATIOS[0] or ratio > USUAL_RATIOS[1])


def _padded_box(mask: Mask) -> np.ndarray:
    """The mask in its bounding box, with a margin of one pixel of background, as 0 and 1."""
    check_frames(mask, mask)
    return np.pad(mask[bounding_box(mask)].view(np.uint8), 1)
