"""The ceiling of a table: how well the readers of a domain agree, each scored against each other one as a network is.

A network that is trained and scored on what readers drew cannot be told from a reader once it agrees with each of them
as well as they agree with one another. The records hold every ordered pair of readers of a case; `scored_values` takes
their mean. Masks of readers are truth, so nothing is post-processed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

from fundus_seg.data.dataset import read_readers
from fundus_seg.data.files import Case
from fundus_seg.errors import Problems
from fundus_seg.evaluation.beside import Scores, is_beside, keep_beside, meta_beside
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta
from fundus_seg.evaluation.score_case import case_identity, score_case
from fundus_seg.evaluation.which_cases import readers_digest
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.atomic import csv_text
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import ceiling_identity
from fundus_seg.runs.provenance import versions


def keep_ceiling(run: RunFolder, evaluation: Evaluation, cases: Sequence[Case], *, progress: Progress = SILENT) -> None:
    """Write the ceiling of a run's scores on its holdout into its folder, if it lacks one and two readers drew a case.

    Args:
        run: the run; the caller holds its lease.
        evaluation: its scores.
        cases: the cases that they are of.
        progress: shows how many cases are scored.

    Raises:
        RunError: the run's folder cannot be written.
    """
    if has_ceiling(run, evaluation, cases):
        return
    meta = _meta(evaluation, cases)

    def make() -> Scores:
        return _scores(meta, _read_twice(cases), progress)

    keep_beside(run.ceiling(meta.protocol_digest), meta, evaluation, make, what="ceiling", progress=progress)


def has_ceiling(run: RunFolder, evaluation: Evaluation, cases: Sequence[Case]) -> bool:
    """Whether the ceiling of a run's scores is in its folder, or there is none to be had."""
    if evaluation.meta.scored != "holdout" or not _read_twice(cases):
        return True
    return is_beside(run.ceiling(evaluation.meta.protocol_digest), _meta(evaluation, cases), evaluation)


def _read_twice(cases: Sequence[Case]) -> list[Case]:
    """The cases that two readers drew, or more."""
    return [case for case in cases if len(case.readers) > 1]


def _meta(evaluation: Evaluation, cases: Sequence[Case]) -> EvaluationMeta:
    """The JSON of the ceiling, but for the digest of its records."""
    meta = meta_beside(evaluation, ceiling_identity(evaluation.meta.run.holdout))
    return meta.model_copy(update={"checkpoint_sha256": readers_digest(cases)})


def _scores(meta: EvaluationMeta, cases: Sequence[Case], progress: Progress) -> Scores:
    """What is written of the cases that two readers drew."""
    rows: list[dict[str, Any]] = []
    problems = Problems()
    with progress.task(f"scoring readers against each other, unseen {meta.run.holdout}", total=len(cases)) as advance:
        for case in cases:
            with problems.gather():
                for one, other in permutations(read_readers(case), 2):
                    identity = case_identity(case, meta.protocol) | {"reader": one.reader, "other": other.reader}
                    both = (True, one.annotated[1] and other.annotated[1])
                    rows += score_case(other.masks, one.masks, scoring=meta.protocol, annotated=both, **identity)
            advance()
    problems.refuse("masks of readers cannot be used")
    return meta.model_copy(update={"versions": versions()}), csv_text(rows), None
