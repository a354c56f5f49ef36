"""The parts of `train.augment`: how photographs of one eye by different cameras and hands differ.

All numbers stand in `STRENGTHS` and `CHANCES`. Lengths are shares of the crop's side, because a crop shows as much of
the eye at any training size.
"""

from __future__ import annotations

from functools import partial

import albumentations as A

from fundus_seg.data.augment.operations import Change, Grain, Reframe, blur, drawn, gamma, grain, jpeg, sharpen
from fundus_seg.data.transforms import EachCase

STRENGTHS = {
    # colour: factors and exponents around 1, except for the hue
    "brightness": (0.75, 1.15),  # flash, width of the pupil, exposure
    "contrast": (0.75, 1.20),  # about the mean: stray light, cloudy lens
    "saturation": (0.70, 1.15),  # film, sensor, white balance
    "hue": (-0.02, 0.02),  # share of the circle of hues, up to 7 degrees: pigment, ageing lens, white balance
    "gamma": (0.80, 1.30),  # the tone curve of the camera
    # geometry
    "shift": (-0.05, 0.05),  # share of the side, for each axis: crops are centred by hand, or by a detector
    "scale": (0.95, 1.05),  # factor: refraction and length of the eye
    "rotation": (-15.0, 15.0),  # degrees: tilt of the head, roll of the eye
    # framing
    "zoom": (1 / 1.3, 1.3),  # factor of the disc's share of the crop: the margins that data sets leave around it
    # quality
    "blur": (0.001, 0.006),  # sigma, share of the side: focus, motion
    "grain": (0.5, 4.0),  # standard deviation in grey values: sensors in little light
    "sharpening": (0.2, 1.0),  # amount of an unsharp mask, which many cameras apply
    "jpeg": (5.0, 60.0),  # 100 - quality of the file
}
CHANCES = {
    # share of the cases that an operation is applied to
    "geometry": 0.8,  # the others are not resampled, as no photograph is that the network meets later
    "framing": 0.8,
    "flip": 0.5,  # left eyes and right eyes are mirror images, and equally frequent
    "quality": 0.3,  # for each of the four operations: most photographs that are kept are good ones
}
SHARPENED = 0.006
"""Sigma of the unsharp mask, as a share of the side."""


def colour(size: int, seed: int) -> EachCase:
    """Brightness, contrast, saturation and hue, in an order that is drawn; then gamma."""
    jitter = {name: STRENGTHS[name] for name in ("brightness", "contrast", "saturation", "hue")}
    return drawn(lambda: [A.ColorJitter(**jitter, p=1), Change(gamma, STRENGTHS["gamma"], p=1)])


def geometry(size: int, seed: int) -> EachCase:
    """A small shift, scaling and rotation. What comes into the photograph is black, as beside the field of view."""
    shift = {"x": STRENGTHS["shift"], "y": STRENGTHS["shift"]}
    moves = {"translate_percent": shift, "scale": STRENGTHS["scale"], "rotate": STRENGTHS["rotation"]}
    return drawn(lambda: [A.Affine(**moves, keep_ratio=True, p=CHANCES["geometry"])])


def framing(size: int, seed: int) -> EachCase:
    """Another margin around the disc, which takes more or less of the crop, by a factor; see `Reframe`."""
    return drawn(lambda: [Reframe(STRENGTHS["zoom"], p=CHANCES["framing"])])


def flip(size: int, seed: int) -> EachCase:
    """Half of the cases are mirrored left to right: a left eye becomes a right eye.

    The kernels of TVConv belong to positions, and they are not mirrored with the photograph. Data sets hold eyes of
    both sides, so a mirrored case is one that might have been photographed. Three seeds on two cameras tell no
    difference between TVConv with these flips and without (docs/recipe.md).
    """
    return drawn(lambda: [A.HorizontalFlip(p=CHANCES["flip"])])


def quality(size: int, seed: int) -> EachCase:
    """What happens on the way from the eye to the file, in this order: blur, noise, sharpening, JPEG compression."""
    chance = CHANCES["quality"]
    return drawn(
        lambda: [
            Change(lambda image, share: blur(image, share * size), STRENGTHS["blur"], chance),
            Grain(grain, STRENGTHS["grain"], chance),
            Change(partial(sharpen, sigma=SHARPENED * size), STRENGTHS["sharpening"], chance),
            Change(jpeg, STRENGTHS["jpeg"], chance),
        ]
    )
