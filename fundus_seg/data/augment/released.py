"""The augmentation of the released code, and none."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.transforms import Augmentation, Pair

RELEASED_SCALE = (1.0, 1.5)
"""Range of the released code's enlargement; a factor is drawn for each axis."""


class RandomScaleCrop(A.RandomResizedCrop):
    """Enlarge each axis by a factor of its own and crop a window of the original size, in one crop and one resize."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the window, in pixels of the original image, that fills the frame once it is enlarged."""
        height, width = params["shape"][:2]
        window_h = round(height / self.py_random.uniform(*RELEASED_SCALE))
        window_w = round(width / self.py_random.uniform(*RELEASED_SCALE))
        top, left = self.py_random.randint(0, height - window_h), self.py_random.randint(0, width - window_w)
        return {"crop_coords": (left, top, left + window_w, top + window_h)}


def scale_crop(size: int, seed: int) -> Augmentation:
    """The released code's augmentation: half of the cases, size x size, go through RandomScaleCrop."""
    pipeline = A.Compose([RandomScaleCrop(size=(size, size), p=0.5)], seed=seed)

    def apply(image: NDArray[np.uint8], masks: NDArray[np.uint8]) -> Pair:
        augmented = pipeline(image=image, masks=masks)
        return augmented["image"], np.asarray(augmented["masks"])

    return apply


def no_augmentation(size: int, seed: int) -> None:
    """No augmentation: cases are used as they are."""
