"""What augmentations are built from: operations on one image, and how they are drawn.

Each operation is a function of an image (S, S, 3) uint8 and a magnitude, and gives the image itself at magnitude 0 (at
1, where the magnitude is a factor or an exponent). They stand here where albumentations has none, or has one that no
camera makes: its JPEG compression takes red for blue, so that the red of a fundus loses most of its detail, and its
gamma rounds every grey value down.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.transforms import EachCase, Pair

Image = NDArray[np.uint8]
_BLACK = 20
"""Grey value that no channel exceeds outside the field of view."""


def gamma(image: Image, exponent: float) -> Image:
    """255 (x / 255)^g with the exponent g: below 1 the shadows are lifted. Black and white stay as they are."""
    table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def blur(image: Image, sigma: float) -> Image:
    """Convolution with a Gaussian of standard deviation `sigma`, in pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8) if sigma else image


def sharpen(image: Image, amount: float, sigma: float) -> Image:
    """Unsharp mask x + a (x - G x): a is the amount, G a Gaussian blur of `sigma` pixels."""
    return np.asarray(cv2.addWeighted(image, 1 + amount, blur(image, sigma), -amount, 0), np.uint8)


def jpeg(image: Image, loss: float) -> Image:
    """What is left of the image after a JPEG file of quality 100 - loss; at loss 0 it is not compressed."""
    if not loss:
        return image
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(100 - loss)])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


def grain(image: Image, deviation: float, rng: np.random.Generator) -> Image:
    """Independent normal noise of this standard deviation, in grey values, is added to every channel."""
    if not deviation:
        return image
    noisy = rng.standard_normal(image.shape, np.float32)
    noisy *= deviation
    noisy += image
    return np.rint(noisy.clip(0, 255, out=noisy), out=noisy).astype(np.uint8)


class Change(A.ImageOnlyTransform):
    """An operation whose magnitude is drawn uniformly between two numbers.

    Args:
        operation: (image, magnitude) -> image.
        between: the smallest and the largest magnitude.
        p: probability that the operation is applied.
    """

    def __init__(self, operation: Callable[..., Image], between: tuple[float, float], p: float) -> None:
        super().__init__(p=p)
        self.operation = operation
        self.between = between

    def get_params(self) -> dict[str, Any]:
        """Draw the magnitude."""
        return {"magnitude": self.py_random.uniform(*self.between)}

    def apply(self, img: Image, magnitude: float, **_: Any) -> Image:
        """Apply the operation."""
        return self.operation(img, magnitude)


class Grain(Change):
    """Normal noise whose standard deviation is drawn uniformly; `operation` is `grain`, or has its arguments."""

    def apply(self, img: Image, magnitude: float, **_: Any) -> Image:
        """Add the noise."""
        return self.operation(img, magnitude, self.random_generator)


class Reframe(A.Affine):
    """Zoom about the centre of the disc by a factor whose logarithm is drawn uniformly.

    What comes into the picture mirrors the retina beside it, or is black where the picture ends beside the field of
    view. The disc stays whole, and no part of it is mirrored: where it nearly fills the picture, the factors that are
    left are closer to 1.

    Args:
        between: the smallest and the largest factor, around 1.
        p: probability that it is applied.
    """

    def __init__(self, between: tuple[float, float], p: float) -> None:
        super().__init__(border_mode=cv2.BORDER_REFLECT_101, p=p)
        self.between = between

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the factor; without a disc the zoom is about the middle of the picture."""
        shape = np.array(params["shape"][:2])
        left, top, width, height = cv2.boundingRect(data["masks"][0])
        middle = np.array([top + (height - 1) / 2, left + (width - 1) / 2]) if width else (shape - 1) / 2
        to_edge = np.minimum(middle, shape - 1 - middle)
        radius = np.array([height + 1, width + 1]) / 2
        filled = float(np.max(radius / np.maximum(to_edge, 1)))  # 1 where the disc reaches an edge
        least, most = max(self.between[0], 1 / (2 - filled)), min(self.between[1], 1 / filled)
        factor = math.exp(self.py_random.uniform(math.log(least), math.log(most))) if filled < 1 else 1.0
        y, x = middle - factor * middle
        matrix = np.array([[factor, 0, x], [0, factor, y], [0, 0, 1]])
        return {"matrix": matrix, "output_shape": tuple(shape.tolist())}

    def apply(self, img: Image, matrix: NDArray[np.float64], output_shape: tuple[int, int], **params: Any) -> Image:
        """Zoom the photograph."""
        mirrored: Image = super().apply(img, matrix, output_shape, **params)
        if matrix[0, 0] >= 1:
            return mirrored
        edges = cv2.warpAffine(img, matrix[:2], output_shape, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.copyTo(edges, cv2.inRange(edges, (0,) * 3, (_BLACK,) * 3), mirrored), np.uint8)


def drawn(make: Callable[[], Sequence[A.BasicTransform]]) -> EachCase:
    """An augmentation by transforms of albumentations, of which each thread makes its own, because they hold state."""
    own = threading.local()

    def augment(image: Image, masks: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
        if not hasattr(own, "pipeline"):
            own.pipeline = A.Compose(make())
        own.pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        made = own.pipeline(image=image, masks=masks)
        return made["image"], made["masks"]

    return EachCase(augment)
