"""Train the localiser, and measure it on photographs that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND
from fundus_seg.data.box import Box
from fundus_seg.data.dataset import read_sample
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import RunError, UsageError, counted, unknown_name
from fundus_seg.inference.localise import Localiser
from fundus_seg.metrics.overlap import bounding_box
from fundus_seg.models.localiser import save_localiser
from fundus_seg.phantom.frames import FRAME_CAMERAS, draw_frame
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.atomic import atomic_path
from fundus_seg.training.localiser import Effort, train_localiser

FRAMING = 0.6
"""Diameter of the disc as a share of the crop's side, for which crops are judged: that of the usual crops."""
TOLERANCE = 1.25
"""A crop's side is right within this factor."""
_MEASURED = 100


@dataclass(frozen=True)
class Localised:
    """How well discs were found.

    Attributes:
        count: photographs.
        found: those in which a disc was found.
        right: those whose crop has the wanted side, within the factor `TOLERANCE`, and the whole disc inside.
    """

    count: int
    found: int
    right: int

    def __str__(self) -> str:
        return f"{self.right} of {counted(self.count, 'crop')} right, {self.count - self.found} discs not found"


def measure(localiser: Localiser, photographs: Iterable[tuple[NDArray[np.uint8], NDArray[np.bool_]]]) -> Localised:
    """Find the discs in photographs (H, W, 3), and compare the crops around them with the true discs (H, W)."""
    count = found = right = 0
    for image, disc in photographs:
        count += 1
        seen = localiser(image)
        if isinstance(seen, str):
            continue
        found += 1
        wanted = 2 * float(np.sqrt(np.count_nonzero(disc) / np.pi)) / FRAMING
        crop = Box.around(seen.x, seen.y, seen.diameter / FRAMING)
        rows, columns = bounding_box(disc)
        inside = crop.y <= rows.start and rows.stop <= crop.y + crop.height
        inside = inside and crop.x <= columns.start and columns.stop <= crop.x + crop.width
        right += inside and 1 / TOLERANCE <= crop.width / wanted <= TOLERANCE
    return Localised(count, found, right)


def make_localiser(
    out: Path,
    effort: Effort,
    *,
    holdout: str = "D",
    seed: int = 0,
    root: DataRoot | None = None,
    progress: Progress = SILENT,
) -> dict[str, Localised]:
    """Train a localiser, measure it and write its weights, with the arguments and what was measured beside them.

    Args:
        out: the file to write.
        effort: how much it is trained.
        holdout: domain of the phantom that is measured.
        seed: of everything that is drawn.
        root: true frames: the training splits are learnt from, the test splits measured.
        progress: shows how far it is.

    Returns:
        What was measured, by the photographs' origin.

    Raises:
        UsageError: unknown domain.
        DataError: true frames cannot be used.
        RunError: the file cannot be written.
    """
    if holdout not in FRAME_CAMERAS:
        raise UsageError(unknown_name("phantom domain", holdout, FRAME_CAMERAS))
    network = train_localiser(effort, holdout=holdout, seed=seed, root=root, progress=progress)
    localiser = Localiser(network)
    measured = {f"phantom {holdout}, a camera not learnt from": measure(localiser, _phantoms(holdout, seed))}
    for domain in root.domains if root is not None else ():
        samples = map(read_sample, root.cases(domain, "test") if root else ())
        measured[domain] = measure(localiser, ((each.image, each.masks[0]) for each in samples))
    about = {"holdout": holdout, "frames": str(effort.frames), "steps": str(effort.steps)}
    about |= {"batch": str(effort.batch), "seed": str(seed)}
    about |= {what: str(found) for what, found in measured.items()}
    try:
        with atomic_path(out) as temporary:
            save_localiser(temporary, network, about)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror or error}); name another file") from error
    return measured


def _phantoms(domain: str, seed: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    for index in range(_MEASURED):
        image, mask = draw_frame(domain, index, seed)
        yield image, mask != BACKGROUND
