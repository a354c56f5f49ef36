"""Count anatomical faults of masks: several components, holes, and cup pixels outside the disc.

The connectivity is that of the post-processing: components are 8-connected, the background around them is 4-connected.
"""

from __future__ import annotations

import cv2
import numpy as np

from fundus_seg.metrics.overlap import Mask, bounding_box, check_frames


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


def _padded_box(mask: Mask) -> np.ndarray:
    """The mask in its bounding box, with a margin of one pixel of background, as 0 and 1."""
    check_frames(mask, mask)
    return np.pad(mask[bounding_box(mask)].view(np.uint8), 1)
