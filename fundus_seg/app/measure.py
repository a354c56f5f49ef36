"""Measures one photograph after the other by the steps of `predict`, and makes the pictures that show the measures."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.data.box import Box
from fundus_seg.data.framing import Framing
from fundus_seg.data.identifiers import naming
from fundus_seg.data.io import read_image, read_mask
from fundus_seg.data.listing import is_dicom
from fundus_seg.data.names import name_of
from fundus_seg.data.witness import Witness
from fundus_seg.inference.case_columns import CROP
from fundus_seg.inference.case_rows import harmless
from fundus_seg.inference.case_warnings import UNREADABLE
from fundus_seg.inference.loaded import load_networks, trust_for
from fundus_seg.inference.members import find_members
from fundus_seg.inference.output import Output
from fundus_seg.inference.roi import AUTO, Roi
from fundus_seg.progress import SILENT, Progress
from fundus_seg.viz.paths import contour_paths

_WHOLE, _ENLARGED = 1400, 1200
"""Pixels of a picture's longer side: of the whole photograph, and of its part that the networks saw."""
_SMOOTHING = 1.0
"""Sigma, in pixels of the photograph, by which a shown contour is smoothed; the mask that is measured is not."""
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Picture:
    """A part of a photograph as the page shows it.

    Attributes:
        file: the JPEG.
        size: its width and height.
        part: the part of the photograph.
        contours: paths of SVG in its pixels, of disc and cup; none of an empty mask.
        key: a word that nobody guesses, by which the page that shows it asks for it, and no other page can.
    """

    file: Path
    size: tuple[int, int]
    part: Box
    contours: tuple[str, ...]
    key: str = field(default_factory=secrets.token_urlsafe)


@dataclass(frozen=True)
class Measured:
    """What was measured of a photograph.

    Attributes:
        row: its row of `cases.csv`.
        whole: the whole photograph; None if it cannot be read.
        enlarged: the part that the networks saw; None if there is none.
    """

    row: Mapping[str, Any]
    whole: Picture | None = None
    enlarged: Picture | None = None

    @property
    def box(self) -> Box | None:
        """The part of the photograph that the networks saw."""
        return self.enlarged.part if self.enlarged else None


class Measurer:
    """Networks that measure photographs; they are loaded once, for all open pages.

    Args:
        models: as in `predict_folder`.
        decline_below: as in `predict_folder`.
        progress: gets the lines about the networks.

    Raises:
        RunError, CheckpointError, UsageError: as `predict_folder` of its models.
    """

    def __init__(
        self, models: Sequence[str | Path], *, decline_below: float | None = None, progress: Progress = SILENT
    ) -> None:
        members = find_members(models, progress=progress)
        trust = trust_for(members, "", decline_below, progress)
        self.trusted = trust is not None
        self._loaded = load_networks(members, trust, decline_below=decline_below, progress=progress)
        self._loaded.steps(Output(Path(), "png", None), AUTO)  # what finds the disc is loaded now, not while one waits

    @property
    def framing(self) -> Framing | None:
        """The framing of the photographs that trained the networks; None: not known."""
        return self._loaded.predictor.framing

    def measure(self, path: Path, roi: Roi = AUTO, *, called: str | None = None) -> Measured:
        """Measure a photograph that lies alone in its folder, where its mask and pictures are written too.

        Args:
            path: its file.
            roi: which part of it the networks see.
            called: its name in the table, which differs from the file's if that is too long; None: the file's.

        Raises:
            UsageError: it is a DICOM file, and pydicom is not installed.
            DataError: the key of identifiers cannot be kept.
        """
        name, output = name_of(path), Output(path.parent, "png", None)
        output.remove(name)
        steps = self._loaded.steps(output, roi, naming=naming(keep=False) if is_dicom(path) else None)
        (computed,) = steps.compute([steps.read(name, path, Witness(""))])
        row = {**steps.finish(computed).row, "photograph": harmless(Path(called or path.name))}
        if row["warning"] == UNREADABLE:
            return Measured(row)
        image, mask = read_image(path), output.mask(name)
        masks = read_mask(mask) if mask.is_file() else np.zeros((2, *image.shape[:2]), np.bool_)
        whole = _picture(image, masks, Box.whole(image.shape), path.with_name("whole.jpg"), _WHOLE)
        if math.isnan(row["crop_x"]):
            return Measured(row, whole)
        box = Box(*(int(row[side]) for side in CROP))
        return Measured(row, whole, _picture(image, masks, box, path.with_name("enlarged.jpg"), _ENLARGED))

    def box_around(self, disc: Box) -> Box:
        """The part that the networks see of a photograph whose disc fills a box: framed as in training."""
        if self.framing is None:
            return disc
        side = math.sqrt(disc.width * disc.height) / self.framing.middle
        return Box.around(disc.x + disc.width / 2, disc.y + disc.height / 2, side)


def _picture(image: NDArray[np.uint8], masks: NDArray[np.bool_], part: Box, file: Path, longest: int) -> Picture:
    """Write a part of an image (H, W, 3), its longer side of some pixels, with the contours of the masks (2, H, W)."""
    scale = longest / max(part.width, part.height)
    size = (max(1, round(scale * part.width)), max(1, round(scale * part.height)))
    shown = Image.fromarray(part.cut(image)).resize(size, Image.Resampling.BICUBIC)
    shown.save(file, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    seen = part.cut(masks.transpose(1, 2, 0)).transpose(2, 0, 1)
    return Picture(file, size, part, contour_paths(np.stack([_resized(mask, size) for mask in seen]), size))


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (H, W) at another width and height; where that is larger, without the staircase of its pixels."""
    smooth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _SMOOTHING, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR) > 0.5)
