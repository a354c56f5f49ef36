"""The true masks that predictions are scored against."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.coding import Annotation, Coding, Thresholds
from fundus_seg.data.io import read_photograph
from fundus_seg.data.mask_files import MaskFiles, find_masks
from fundus_seg.data.names import case_hint, matched
from fundus_seg.data.recognise import MOST_MASKS, Side, settle_coding
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError, Problems
from fundus_seg.progress import Progress


def find_truths(
    where: Sequence[str], coding: Coding | Thresholds | None, photographs: Mapping[str, Path], progress: Progress
) -> MaskFiles:
    """The true masks of the photographs; a photograph without one gets no scores.

    Some are read with their photographs, so that what is wrong with all of them is told before anything is predicted.

    Raises:
        DataError: as `find_masks` and `settle_coding`; no mask has the name of a photograph; or most masks show another
            coding, have no disc, or lie otherwise on their photographs.
    """
    masks = find_masks(where, coding)
    names = list(photographs)
    files = {name: masks[other] for name, other in matched(names, masks.keys()).items()}
    if not files:
        raise DataError(
            f"holds no mask with the name of a photograph ('{next(iter(masks))}' here, '{names[0]}' there); "
            + (
                case_hint(masks, names)
                or "--truth takes a folder of true masks, or a pattern that says which part of a path is the name"
            ),
            where[0],
        )
    settled = settle_coding(Side(where, list(files.values()), coding, "--truth-coding"))
    if settled != coding:
        progress.line(f"coding of the true masks, as recognised: {settled}")
    unscored = [name for name in names if name not in files]
    progress.left_out("photograph", "not scored, without a true mask", unscored, case_hint(unscored, masks))
    truths = MaskFiles(files, Annotation(settled), nested=True)
    witness = Witness("--truth-coding")
    for name in list(files)[:MOST_MASKS]:
        with contextlib.suppress(DataError):  # reported with its photograph
            read_pair(name, photographs[name], truths, witness)
    Problems(witness.suspicion().problems).refuse("problems with the true masks")
    return truths


def read_pair(
    name: str, path: Path, truths: MaskFiles | None, witness: Witness
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A photograph, and its true masks if it has any, which the witness sees."""
    photograph = read_photograph(path)
    if truths is None or name not in truths.files:
        return photograph.pixels, None
    true = truths.read(name, witness, photograph, path)
    return photograph.pixels, true
