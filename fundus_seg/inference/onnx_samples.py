"""Photographs on which a network as ONNX is compared with the one that it was made of: given ones, or phantom ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data import listing
from fundus_seg.data.coding import Coding, Thresholds
from fundus_seg.data.names import by_name
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError, Problems
from fundus_seg.inference.localise import localiser
from fundus_seg.inference.predict import Predictor
from fundus_seg.inference.roi import AUTO, Region
from fundus_seg.inference.truths import find_truths, read_pair
from fundus_seg.phantom.make import draw_case
from fundus_seg.progress import Progress
from fundus_seg.protocol import DOMAINS

_PHANTOMS = 2
"""Phantom photographs of each domain, where none are given."""


@dataclass(frozen=True)
class Sample:
    """What is kept of one photograph.

    Attributes:
        name: of the photograph.
        seen: what the network sees of it (s, s, 3) uint8.
        frame: height and width of the part of it that is predicted.
        region: that part.
        shape: height and width of the photograph.
        true: its true masks (2, H, W), packed into bits; None: there are none.
    """

    name: str
    seen: NDArray[np.uint8]
    frame: tuple[int, int]
    region: Region
    shape: tuple[int, int]
    true: NDArray[np.uint8] | None

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The true masks (2, H, W)."""
        assert self.true is not None
        return np.unpackbits(self.true, axis=-1, count=self.shape[1]).view(np.bool_)


def given_samples(
    photographs: Sequence[Path],
    truth: Sequence[str],
    coding: Coding | Thresholds | None,
    predictor: Predictor,
    progress: Progress,
) -> list[Sample]:
    """The samples of photographs, of which the same part is taken as `predict` takes of them.

    Args:
        photographs: files, and folders of photographs.
        truth: as `find_masks` takes it; without, the samples have no true masks.
        coding: of the true masks; None: it is recognised.
        predictor: the network that is compared.
        progress: is told which photographs are left out.

    Raises:
        DataError: there is no photograph, or one of them or its true mask cannot be used.
    """
    found = listing.photographs(photographs)
    listing.tell(found.skipped, progress)
    problems = Problems()
    files = by_name(found.files, "photograph", problems)
    problems.refuse("photographs cannot be used")
    truths = find_truths(truth, coding, files, progress) if truth else None
    find, witness = localiser() if predictor.framing else None, Witness("--truth-coding")
    samples, without = [], []
    with progress.task("reading", total=len(files)) as advance:
        for name, path in files.items():
            image, true = read_pair(name, path, truths, witness)
            region = AUTO.region(name, image, predictor.framing, find)
            if region.box is None:
                without.append(path)
            else:
                samples.append(_sample(name, image, region, true, predictor))
            advance()
    witness.suspicion().tell(progress)
    progress.left_out("photograph", "in which no disc is found", without)
    if not samples:
        raise DataError("no disc is found in any of the photographs; give others", photographs[0])
    return samples


def phantom_samples(predictor: Predictor) -> list[Sample]:
    """Samples of photographs that are drawn, without true masks."""
    places = [(domain, index) for domain in DOMAINS for index in range(_PHANTOMS)]
    photographs = {f"phantom-{domain}-{index:03d}": draw_case(domain, index, 0)[0] for domain, index in places}
    whole = Region("full", None)
    return [_sample(name, image, whole, None, predictor) for name, image in photographs.items()]


def _sample(
    name: str, image: NDArray[np.uint8], region: Region, true: NDArray[np.bool_] | None, predictor: Predictor
) -> Sample:
    part = region.cut(image)
    packed = None if true is None else np.packbits(true, axis=-1)
    (height, width), frame = part.shape[:2], (image.shape[0], image.shape[1])
    return Sample(name, predictor.prepare(part), (height, width), region, frame, packed)
