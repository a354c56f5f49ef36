"""Evaluations that stand beside those of runs, made without their networks: the floor and the ceiling of a table.

All runs that share data, size and protocol have the same. Each is scored once, kept in the cache, and copied into the
folder of each run, so that a copy of that folder is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from fundus_seg.cache_folder import cache_folder, remove
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import DataError, RunError, UsageError, one_line
from fundus_seg.evaluation.alike import Alike
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta, read_evaluation, read_meta, write_evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.atomic import atomic_folder
from fundus_seg.runs.identity import NO_NETWORK, RunIdentity
from fundus_seg.version import __version__

Scores = tuple[EvaluationMeta, str, Mapping[str, Alike] | None]
"""What `write_evaluation` writes."""


def meta_beside(scores: Evaluation, identity: RunIdentity) -> EvaluationMeta:
    """The JSON of what stands beside a run's scores, but for digests that are not known yet."""
    changed = {"run": identity, "selection": NO_NETWORK, "checkpoint": None, "probed": False, "code": {}, "members": {}}
    return scores.meta.model_copy(update={**changed, "checkpoint_sha256": "", "cases_sha256": ""})


def keep_beside(
    path: Path,
    meta: EvaluationMeta,
    scores: Evaluation,
    make: Callable[[], Scores],
    *,
    what: str,
    progress: Progress = SILENT,
) -> None:
    """Write into a run's folder what stands beside its scores, from the cache if it was made before.

    Args:
        path: where it belongs.
        meta: as `is_beside` takes it.
        scores: those of the run; the caller holds its lease.
        make: scores it.
        what: its kind, in one word; `progress` is told if the photographs do not allow it.
        progress: shows what is done.

    Raises:
        RunError: the run's folder cannot be written.
    """
    entry = cache_folder() / f"{what}s" / _key(meta)
    kept = entry / f"{meta.run.operator}.csv"
    if is_beside(kept, meta, scores):
        there = read_evaluation(kept)
        write_evaluation(path, there.meta, kept.read_bytes().decode("utf8"), there.alike)
        return
    try:
        made = make()
    except (DataError, UsageError) as error:
        progress.left_out(what, f"not made ({one_line(error)})", [path.parent.parent])
        return
    write_evaluation(path, *made)
    with suppress(OSError, RunError):  # a cache that cannot be written only costs time, or another process was quicker
        remove(entry)
        with atomic_folder(entry) as staged:
            write_evaluation(staged / kept.name, *made)


def is_beside(path: Path, meta: EvaluationMeta, scores: Evaluation) -> bool:
    """Whether evaluation there is the one that stands beside these scores, whole and with their metrics.

    Args:
        path: its CSV.
        meta: its JSON, whatever versions wrote it; without a digest of what was scored, that is not compared.
        scores: those of the run.
    """
    try:
        there = read_meta(path)
        unknown = ("versions", "cases_sha256", *(() if meta.checkpoint_sha256 else ("checkpoint_sha256",)))
        own = {key: getattr(there, key) for key in unknown}
        if meta.model_copy(update=own) != there or file_digest(path) != there.cases_sha256:
            return False
        with path.open(encoding="utf8") as file:
            columns = file.readline().strip().split(",")
        return {*METRICS} & {*scores.cases} <= {*columns}
    except (RunError, OSError):
        return False


def _key(meta: EvaluationMeta) -> str:
    """Names all that decides the records, this version and its metrics included."""
    own = meta.model_dump(mode="json", exclude={"versions"})
    return short_hash([own, __version__, list(METRICS)], digits=32)
