"""Augmentations. No other module imports albumentations.

An augmentation maps an image (S, S, 3) uint8 and its masks (2, S, S) uint8 to the same shapes and types. It draws from
a generator of its own, which `augmentation` seeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the network for its latest version at import
import albumentations as A

from fundus_seg.builtins import AUGMENTATIONS
from fundus_seg.errors import UsageError
from fundus_seg.plugins import blamed, find

Augmentation = Callable[[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.uint8]]]

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

    def apply(image: NDArray[np.uint8], masks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        augmented = pipeline(image=image, masks=masks)
        return augmented["image"], np.asarray(augmented["masks"])

    return apply


def no_augmentation(size: int, seed: int) -> None:
    """No augmentation: cases are used as they are."""


def augmentation(name: str, size: int, seed: int) -> Augmentation | None:
    """The augmentation `name`, seeded; None for `none`.

    Args:
        name: a key of `fundus_seg.builtins.AUGMENTATIONS`, or `package.module:factory` of your own.
        size: height and width of the images.
        seed: seed of the augmentation's generator.

    Raises:
        UsageError: the name is unknown, or the plugin cannot be loaded or raises; when the augmentation is called, it
            raises, or returns other shapes or types than it was given.
    """
    factory = find("augmentation", name, AUGMENTATIONS)
    with blamed(name):
        augment: Augmentation | None = factory(size, seed)
    return _checked(name, augment) if augment and name not in AUGMENTATIONS else augment


def _checked(name: str, augment: Augmentation) -> Augmentation:
    """The augmentation of a plugin, which now refuses to change shapes or types."""

    def apply(image: NDArray[np.uint8], masks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        with blamed(name):
            one, other = augment(image, masks)
            pair = np.asarray(one), np.asarray(other)
        given, taken = ([f"{array.shape} {array.dtype}" for array in arrays] for arrays in (pair, (image, masks)))
        if given != taken:
            raise UsageError(f"{name}: gives {' and '.join(given)}: return image and masks as {' and '.join(taken)}")
        return pair

    return apply
