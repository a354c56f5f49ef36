"""BigAug: nine operations one after another, each applied to half of the cases, with wide ranges.

L. Zhang, X. Wang, D. Yang, T. Sanford, S. Harmon, B. Turkbey, B. J. Wood, H. Roth, A. Myronenko, D. Xu, Z. Xu:
Generalizing Deep Learning for Medical Image Segmentation to Unseen Domains via Deep Stacked Transformation. IEEE
Transactions on Medical Imaging 39(7), 2020. The paper is about volumes of MRI and ultrasound; a photograph has two
dimensions and three colours. This implementation deviates where that matters:

- The ranges are those that other implementations give after the paper.
- All channels are changed alike: the paper has one channel, and hence no change of colour.
- The paper normalises each volume to mean 0 and standard deviation 1. The standard deviation of the noise is therefore
  a share of the photograph's own; shifts of brightness are shares of the range from black to white, and results are
  clipped to it.
- The unsharp mask is taken of the photograph itself, with a Gaussian of half a pixel.
- The deformation is a smoothed field of uniform noise. Smoothing lowers noise less in two dimensions than in three, so
  the field's amplitude is lowered to what gives about the same displacement: a standard deviation of 2 pixels at most.
"""

from __future__ import annotations

from typing import Any

import albumentations as A

from fundus_seg.data.augment.operations import Change, Grain, blur, drawn, gamma, grain, sharpen
from fundus_seg.data.transforms import EachCase

CHANCE = 0.5
"""Share of cases that each operation is applied to."""
RANGES = {
    "sharpness": (10.0, 30.0),  # amount of the unsharp mask
    "blurriness": (0.25, 1.5),  # sigma, pixels
    "noise": (0.1, 1.0),  # standard deviation, share of the photograph's
    "brightness": (-0.1, 0.1),  # shift, share of the range of grey values
    "contrast": (0.5, 4.5),  # exponent of gamma
    "perturbation": (-0.1, 0.1),  # of a factor 1 + u, and of a shift as above, drawn apart
    "rotation": (-20.0, 20.0),  # degrees
    "scaling": (0.4, 1.6),  # factor
    "smoothness": (10.0, 13.0),  # sigma of the deformation, pixels
    "deformation": (0.0, 160.0),  # amplitude before smoothing, pixels; 1000 in the paper's three dimensions
}


def bigaug(size: int, seed: int) -> EachCase:
    """The nine operations in the paper's order: quality, appearance, then place and shape."""
    return drawn(
        lambda: [
            Change(lambda image, amount: sharpen(image, amount, 0.5), RANGES["sharpness"], CHANCE),
            Change(blur, RANGES["blurriness"], CHANCE),
            Grain(lambda image, share, rng: grain(image, share * image.std(), rng), RANGES["noise"], CHANCE),
            A.RandomBrightnessContrast(RANGES["brightness"], (0, 0), p=CHANCE),
            Change(gamma, RANGES["contrast"], CHANCE),
            A.RandomBrightnessContrast(RANGES["perturbation"], RANGES["perturbation"], p=CHANCE),
            A.Affine(rotate=RANGES["rotation"], p=CHANCE),
            A.Affine(scale=RANGES["scaling"], keep_ratio=True, p=CHANCE),
            Deformation(),
        ]
    )


class Deformation(A.ElasticTransform):
    """Displacements by uniform noise that is smoothed; smoothness and amplitude are drawn uniformly."""

    def __init__(self) -> None:
        super().__init__(noise_distribution="uniform", p=CHANCE)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the displacement of each pixel."""
        self.sigma = self.py_random.uniform(*RANGES["smoothness"])
        self.alpha = self.py_random.uniform(*RANGES["deformation"])
        maps: dict[str, Any] = super().get_params_dependent_on_data(params, data)
        return maps
