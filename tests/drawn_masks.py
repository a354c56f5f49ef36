"""Masks drawn by hand, as files of any coding, for the tests of what reads them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fundus_seg.data.mask_files import pair_masks
from fundus_seg.protocol import Scoring


def eye(shift=0, size=40):
    masks = np.zeros((2, size, size), dtype=bool)
    masks[0, 10:30, 8 + shift : 28 + shift] = True
    masks[1, 15:25, 13 + shift : 23 + shift] = True
    return masks


def coded(masks, background, rim, cup):
    return np.select([masks[1], masks[0]], [cup, rim], background).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pairs_of(pred, truth, **options):
    return pair_masks([str(pred)], [str(truth)], **options)


class DrawnModel:
    """A model in place of a `Predictor`: a subclass draws the masks of a photograph when it is called."""

    phantom = False
    scoring = Scoring()
    batch = threads = 1

    def prepare(self, image):
        return image

    def logits_of_batch(self, images, frame):
        return [self(image) for image in images]

    def framed(self, masks, frame, probabilities=None):
        rows, columns = ((np.arange(new) + 0.5) * old // new for new, old in zip(frame, masks.shape[-2:], strict=True))
        masks = masks[:, rows.astype(int)[:, None], columns.astype(int)]
        if probabilities is not None:
            probabilities[:] = masks
        return masks

    def clean(self, masks):
        return masks
