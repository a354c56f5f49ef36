"""Stray parts of true masks: a second component, a hole, or a structure of a few pixels. Truth is told, not cleaned."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.errors import counted
from fundus_seg.protocol import STRUCTURES

TINY = 0.0005
"""A disc that covers less than this share of the frame is told; on a whole photograph it covers about a hundredth."""


def stray_parts(masks: NDArray[np.bool_]) -> Iterator[str]:
    """What is odd about the parts of true masks (2, H, W), in words; nothing about sound or empty masks.

    The words are such as `the disc has 2 components, the second of 9 pixels`. Components are 8-connected.
    """
    for structure, mask in zip(STRUCTURES, masks, strict=True):
        sizes = _component_sizes(mask)
        if len(sizes) > 1:
            yield f"the {structure} has {len(sizes)} components, the second of {_pixels(sizes[1])}"
        if holes := _hole_sizes(mask):
            yield f"the {structure} has {counted(len(holes), 'hole')}, the largest of {_pixels(holes[0])}"
        if structure == "disc" and sizes and sum(sizes) < TINY * mask.size:
            yield f"the disc has only {_pixels(sum(sizes))} in a frame of {mask.shape[1]}x{mask.shape[0]}"


def _component_sizes(mask: NDArray[np.bool_]) -> list[int]:
    """The pixels of each 8-connected component, the largest first."""
    count, _, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return sorted(statistics[1:count, cv2.CC_STAT_AREA].tolist(), reverse=True)


def _hole_sizes(mask: NDArray[np.bool_]) -> list[int]:
    """The pixels of each part of the background that the mask encloses, 4-connected, the largest first."""
    around = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(around, connectivity=4)
    inside = [label for label in range(1, count) if label != labels[0, 0]]
    return sorted(statistics[inside, cv2.CC_STAT_AREA].tolist(), reverse=True)


def _pixels(count: int) -> str:
    return "1 pixel" if count == 1 else f"{count} pixels"
