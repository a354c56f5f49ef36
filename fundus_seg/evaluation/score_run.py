"""From a trained run to its case records. Torch is imported only where a case must be scored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fundus_seg.builtins import CheckpointName, Inference
from fundus_seg.config import PLUGIN_SETTINGS
from fundus_seg.data.dataset import read_masks
from fundus_seg.data.files import Case
from fundus_seg.digests import file_digest
from fundus_seg.errors import RunError
from fundus_seg.evaluation.records import (
    Evaluation,
    EvaluationMeta,
    Scored,
    mask_digest,
    read_evaluation,
    read_meta,
    recover,
    truth_digest,
    write_evaluation,
)
from fundus_seg.evaluation.which_cases import (
    cases_to_score,
    data_of,
    photographs_of,
    trained_settings,
    truth_name,
    warn_of_odd_masks,
)
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES, Scoring
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import recorded_identity
from fundus_seg.runs.lease import leased
from fundus_seg.runs.provenance import versions
from fundus_seg.runs.record import is_probed
from fundus_seg.seeding import reproducible


def evaluate(
    run: RunFolder,
    data: str | Path | None = None,
    *,
    checkpoint: CheckpointName = "best",
    scored: Scored = "holdout",
    scoring: Scoring | None = None,
    inference: Inference | None = None,
    adapt_batch_norms: int | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Score a run, by default on the test split of its holdout, or read the scores if they are there already.

    Of a file that was cut off, the whole cases are kept if they and the newly scored ones together are the file that
    was once written. All rows are written at once, after the last case: a run killed while it is scored keeps none.
    Scores that are there belong to the run as it was recorded: domains added to the data root later change nothing.

    Args:
        run: a trained run.
        data: data root; None for the one that the run was trained on.
        checkpoint: `best`, `last` or, of a run that was probed, `oracle`.
        scored: which cases; scores of either kind have a file of their own and never stand in one table.
        scoring: the protocol; None for the one of the run's own settings.
        inference: what the network sees, in place of what the protocol says.
        adapt_batch_norms: as in `Scoring`, in place of what the protocol says; None leaves it to that.
        progress: shows what is done.

    Raises:
        RunError: the run is not trained, has no such checkpoint, or another process is writing into it.
        CheckpointError: the checkpoint is not of the network that the run's settings name, or its operator is a plugin
            that the caller has not loaded, or that has changed.
        DataError: the photographs are not those that the run was made with, cannot be read, are too large to be seen
            at their own size, or a source domain has none in the half for in-domain scores.
    """
    config, content = trained_settings(run)
    scoring = scoring or config.scoring
    if inference is not None:
        scoring = scoring.model_copy(update={"inference": inference})
    if adapt_batch_norms is not None:
        scoring = scoring.model_copy(update={"adapt_batch_norms": adapt_batch_norms})
    root = data_of(content, data, progress=progress)
    weights = run.checkpoint(checkpoint)
    if not weights.is_file():
        fix = "delete the run and train again"
        if checkpoint == "oracle":
            fix = "train it anew with --probe-holdout, in another --out"
        raise RunError(f"{weights}: no such checkpoint; {fix}")
    cases = cases_to_score(scored, run, content, root, config)
    meta = EvaluationMeta(
        protocol=scoring,
        protocol_digest=scoring.digest(),
        data={where: digest for where, digest in content["inputs"].items() if "/" in where},
        phantom=root.phantom,
        selection=config.train.selection if checkpoint == "best" else checkpoint,
        checkpoint=checkpoint,
        scored=scored,
        probed=is_probed(content),
        checkpoint_sha256=file_digest(weights),
        code={setting: digest for setting, digest in content["inputs"].items() if setting in PLUGIN_SETTINGS},
        run=recorded_identity(run, config, content),
        versions=versions(),
    )
    path = run.evaluation(scoring.digest(), checkpoint if scored == "holdout" else f"{checkpoint}-{scored}")
    if _is_whole(path, _recorded(path, meta, progress), cases) and (run.has("DONE") or scored != "holdout"):
        warn_of_odd_masks(cases, root, config, progress=progress)
        return read_evaluation(path)
    with leased(run.path):
        recorded = _recorded(path, meta, SILENT)  # again: another process may just have scored it
        if not _is_whole(path, recorded, cases):
            from fundus_seg.evaluation.predictions import predictor_of, score_cases

            images = photographs_of(cases, root, config, progress=progress)
            predictor = predictor_of(run, config, checkpoint, scoring)
            score = partial(score_cases, predictor, cases, images, progress=progress, task=f"scoring {run.path}")
            with reproducible(config.train.threads):
                if recorded is None or not recover(path, recorded.cases_sha256, len(cases), score, progress=progress):
                    truths = {truth_name(case, scored): mask_digest(read_masks(case)) for case in cases}
                    write_evaluation(path, meta.model_copy(update={"truth_digest": truth_digest(truths)}), score(0))
        if scored == "holdout":
            run.mark("DONE")
    return read_evaluation(path)


def _is_whole(path: Path, recorded: EvaluationMeta | None, cases: Sequence[Case]) -> bool:
    """Whether the file is what was written, and its rows are those of the cases and possible."""
    if recorded is None or not path.is_file() or file_digest(path) != recorded.cases_sha256:
        return False
    try:
        rows = read_evaluation(path).cases
    except RunError:
        return False
    return list(zip(rows["domain"], rows["case"], strict=True))[:: len(STRUCTURES)] == [
        (case.domain, case.name) for case in cases
    ]


def _recorded(path: Path, meta: EvaluationMeta, progress: Progress) -> EvaluationMeta | None:
    """The JSON on disk if it is of these very scores, whatever versions made them; if it is not, `progress` is told."""
    if not path.exists() and not path.with_suffix(".json").exists():
        return None
    try:
        there = read_meta(path)
        unknown = [] if there.code else ["code"]
        own = {key: getattr(meta, key) for key in ("versions", "cases_sha256", "truth_digest", *unknown)}
        if there.truth_digest and there.model_copy(update=own) == meta:
            return there
        reason = "of another checkpoint or other data"
    except RunError:
        reason = "of an older format, or without its JSON"
    progress.line(f"{path}: {reason}; scoring every case again")
    return None
