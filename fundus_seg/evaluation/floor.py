"""The floor of every table: the mean mask of the source domains, made without a network and scored as one's masks are.

It is the mean of the true masks of the training splits at the training size, over the cases of a source domain and then
over the domains. A batch holds as many cases of each domain, so all domains weigh the same for a network too. Resized
to a case's frame as a network's outputs are, cut at THRESHOLD and post-processed by the protocol, it is the prediction
for every case. A network must score more to have seen anything.

All runs that share data, size and protocol have the same floor. It is scored once, kept in the cache, and copied into
the folder of each run, so that a copy of that folder is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.cache_folder import cache_folder, remove
from fundus_seg.config import PlannedRun
from fundus_seg.data.cache import load_resized
from fundus_seg.data.dataset import read_masks
from fundus_seg.data.files import Case
from fundus_seg.data.layout import DataRoot
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import DataError, RunError, UsageError, one_line
from fundus_seg.evaluation.alike import Alike
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta, read_evaluation, read_meta, write_evaluation
from fundus_seg.evaluation.score_case import score_cases
from fundus_seg.evaluation.which_cases import split_cases
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import atomic_folder
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import NO_NETWORK, floor_identity
from fundus_seg.runs.provenance import versions
from fundus_seg.version import __version__

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
    entry = cache_folder() / "floors" / _key(meta)
    kept = entry / "mean-mask.csv"
    if _is_there(kept, meta, evaluation):
        floor = read_evaluation(kept)
        write_evaluation(path, floor.meta, kept.read_bytes().decode("utf8"), floor.alike)
        return
    try:
        mean = _mean_mask_of(run, content, root, config, progress)
        scores = _scores(meta, cases, mean, progress)
    except (DataError, UsageError) as error:
        progress.left_out("floor", f"not made ({one_line(error)})", [run.path])
        return
    write_evaluation(path, *scores)
    with suppress(OSError, RunError):  # a cache that cannot be written only costs time, or another process was quicker
        remove(entry)
        with atomic_folder(entry) as staged:
            write_evaluation(staged / kept.name, *scores)


def has_floor(run: RunFolder, evaluation: Evaluation, config: PlannedRun) -> bool:
    """Whether the floor of a run's scores is in its folder."""
    return _is_there(*_floor_of(run, evaluation, config), evaluation)


def _floor_of(run: RunFolder, evaluation: Evaluation, config: PlannedRun) -> tuple[Path, EvaluationMeta]:
    """Where the floor of a run's scores belongs, and what its JSON says but for digests that are not known yet."""
    own = evaluation.meta
    changed = {
        "run": floor_identity(config),
        "selection": NO_NETWORK,
        "checkpoint": None,
        "probed": False,
        "code": {},
        "members": {},
    }
    meta = own.model_copy(update={**changed, "checkpoint_sha256": "", "cases_sha256": ""})
    return run.floor(own.protocol_digest, own.scored), meta


def _is_there(path: Path, meta: EvaluationMeta, scores: Evaluation) -> bool:
    """Whether the floor with this JSON was written there, by whatever versions, whole and with the scores' metrics."""
    try:
        there = read_meta(path)
        own = {key: getattr(there, key) for key in ("versions", "checkpoint_sha256", "cases_sha256")}
        if meta.model_copy(update=own) != there or file_digest(path) != there.cases_sha256:
            return False
        with path.open(encoding="utf8") as file:
            columns = file.readline().strip().split(",")
        return {*METRICS} & {*scores.cases} <= {*columns}
    except (RunError, OSError):
        return False


def _key(meta: EvaluationMeta) -> str:
    """Names all that decides the floor's records, this version and its metrics included."""
    own = meta.model_dump(mode="json", exclude={"versions"})
    return short_hash([own, __version__, list(METRICS)], digits=32)


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


def _scores(
    meta: EvaluationMeta, cases: Sequence[Case], mean: NDArray[np.float64], progress: Progress
) -> tuple[EvaluationMeta, str, dict[str, Alike]]:
    """What `write_evaluation` writes of the mean mask on the cases."""
    on_frame = lru_cache(maxsize=8)(lambda frame: masks_on_frame(mean, frame))  # most cases have the same frame

    def predictions() -> Iterator[tuple[Case, NDArray[np.bool_], NDArray[np.bool_]]]:
        for case in cases:
            truth = read_masks(case)
            yield case, on_frame(truth.shape[1:]), truth

    with progress.task(f"scoring the mean mask, unseen {meta.run.holdout}", total=len(cases)) as advance:
        text, alike = score_cases(predictions(), meta.protocol, advance)
    digest = hashlib.sha256(mean.tobytes()).hexdigest()
    return meta.model_copy(update={"checkpoint_sha256": digest, "versions": versions()}), text, alike
