"""The floor of every table: the mean mask of the source domains, made without a network and scored as one's masks are.

It is the mean of the true masks of the training splits at the training size, over the cases of a source domain and then
over the domains. A batch holds as many cases of each domain, so all domains weigh the same for a network too. Resized
to a case's frame as a network's outputs are, cut at THRESHOLD and post-processed by the protocol, it is the prediction
for every case. A network must score more to have seen anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.config import PlannedRun
from fundus_seg.data.cache import load_resized
from fundus_seg.data.dataset import Truth
from fundus_seg.data.files import Case
from fundus_seg.data.layout import DataRoot
from fundus_seg.evaluation.beside import Scores, is_beside, keep_beside, meta_beside
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta
from fundus_seg.evaluation.score_case import score_cases
from fundus_seg.evaluation.which_cases import readers_by, split_cases, truths_by
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import floor_identity
from fundus_seg.runs.provenance import versions

THRESHOLD = 0.5
"""A pixel belongs to a structure if more than half of the true masks say so, whatever the protocol's threshold."""


def mean_mask(domains: Iterable[tuple[NDArray[np.uint8], NDArray[np.bool_]]]) -> NDArray[np.float64]:
    """The mean over domains of the mean over cases, (2, S, S), of those cases in which a structure is annotated.

    Args:
        domains: the masks (N, 2, S, S) of 0 and 1 of each domain, and whether each is annotated, (N, 2). A domain
            without an annotated cup has no part in the mean cup.
    """
    means: list[list[NDArray[np.float64]]] = [[] for _ in STRUCTURES]
    for masks, annotated in domains:
        for structure, known in enumerate(annotated.T):
            if known.any():
                means[structure].append(masks[known, structure].mean(axis=0))
    return np.stack([np.mean(of_domains, axis=0) for of_domains in means])


def masks_on_frame(mean: NDArray[np.float64], frame: Sequence[int]) -> NDArray[np.bool_]:
    """The mean mask (2, S, S) resized bilinearly to a frame (H, W) and cut at THRESHOLD: (2, H, W).

    Pixel centres lie as in torch's `interpolate` without `align_corners`, which resizes a network's outputs.
    """
    height, width = frame
    return np.stack([cv2.resize(own, (width, height), interpolation=cv2.INTER_LINEAR) for own in mean]) > THRESHOLD


def keep_floor(
    run: RunFolder,
    evaluation: Evaluation,
    cases: Sequence[Case],
    root: DataRoot,
    config: PlannedRun,
    content: Mapping[str, Any],
    *,
    progress: Progress = SILENT,
) -> None:
    """Write the floor of a run's scores into its folder; `progress` is told if the photographs do not allow it.

    Args:
        run: the run; the caller holds its lease.
        evaluation: its scores.
        cases: the cases that they are of.
        root: where the photographs are.
        config: the run's settings.
        content: all that its config.yaml holds.
        progress: shows how many cases are scored.

    Raises:
        RunError: the run's folder cannot be written.
    """
    path, meta = _floor_of(run, evaluation, config)

    def make() -> Scores:
        return _scores(meta, cases, _mean_mask_of(run, content, root, config, progress), progress)

    keep_beside(path, meta, evaluation, make, what="floor", progress=progress)


def has_floor(run: RunFolder, evaluation: Evaluation, config: PlannedRun) -> bool:
    """Whether the floor of a run's scores is in its folder."""
    return is_beside(*_floor_of(run, evaluation, config), evaluation)


def _floor_of(run: RunFolder, evaluation: Evaluation, config: PlannedRun) -> tuple[Path, EvaluationMeta]:
    """Where the floor of a run's scores belongs, and what its JSON says but for digests that are not known yet."""
    own = evaluation.meta
    return run.floor(own.protocol_digest, own.scored), meta_beside(evaluation, floor_identity(config))


def _mean_mask_of(
    run: RunFolder, content: Mapping[str, Any], root: DataRoot, config: PlannedRun, progress: Progress
) -> NDArray[np.float64]:
    """The mean mask of the run's source domains.

    Raises:
        DataError: a training split is not what the run was made with, or cannot be read.
    """
    splits = {domain: split_cases(run, content, root, domain, "train") for domain in sorted(config.data.sources)}
    loaded = (load_resized(cases, config.data, progress=progress) for cases in splits.values())
    return mean_mask((each.masks, each.annotated) for each in loaded)


def _scores(meta: EvaluationMeta, cases: Sequence[Case], mean: NDArray[np.float64], progress: Progress) -> Scores:
    """What `write_evaluation` writes of the mean mask on the cases."""
    on_frame = lru_cache(maxsize=8)(lambda frame: masks_on_frame(mean, frame))  # most cases have the same frame

    def predictions() -> Iterator[tuple[Case, NDArray[np.bool_], Truth]]:
        for case in cases:
            for truth in truths_by(meta.protocol, case):
                yield case, on_frame(truth.masks.shape[1:]), truth

    total = sum(len(readers_by(meta.protocol, case)) for case in cases)
    with progress.task(f"scoring the mean mask, unseen {meta.run.holdout}", total=total) as advance:
        text, alike = score_cases(predictions(), meta.protocol, advance)
    digest = hashlib.sha256(mean.tobytes()).hexdigest()
    return meta.model_copy(update={"checkpoint_sha256": digest, "versions": versions()}), text, alike
