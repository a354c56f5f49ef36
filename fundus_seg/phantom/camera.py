"""What a camera of the phantom makes of the light from an eye: a signal, then a file."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.phantom.canvas import clouds
from fundus_seg.phantom.domains import Camera
from fundus_seg.protocol import FRAME


def expose(
    light: NDArray[np.float32], camera: Camera, rng: np.random.Generator, unit: float = 1.0
) -> NDArray[np.float32]:
    """The signal (3, side, side), 0 to 255 and without noise, that the camera makes of light (3, side, side).

    `unit` is the side of a crop as a share of the canvas's side; a crop (FRAME, FRAME) is what the blur is given for.
    """
    side = light.shape[-1]
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] - rng.normal(0.0, 0.15, (2, 1, 1))
    lamp = 1.0 - camera.falloff * 0.5 * (x * x + y * y) + camera.uneven * clouds(rng, 3, side)
    light = light * (rng.normal(1.0, 0.12) * lamp).astype(np.float32)
    blur = camera.blur * rng.uniform(0.8, 1.25) * side / FRAME * unit
    light = np.stack([np.asarray(cv2.GaussianBlur(channel, (0, 0), blur), np.float32) for channel in light])
    light += camera.haze * rng.uniform(0.5, 1.5) * (light.mean(axis=(1, 2), keepdims=True) - light)
    gain = (np.array(camera.gain) * rng.normal(1.0, 0.07, 3)).astype(np.float32)
    return 255.0 * np.clip(light * gain[:, None, None], 0.0, 1.0) ** camera.gamma


def as_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) uint8 as they come out of a JPEG file of this quality."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))
