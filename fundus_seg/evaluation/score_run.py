"""From a trained run to its case records. Torch is imported only where a case must be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fundus_seg.builtins import CheckpointName, Inference, Views
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import RunError, one_line
from fundus_seg.evaluation.ceiling import has_ceiling, keep_ceiling
from fundus_seg.evaluation.ensembles import RunEnsemble, members_of, refuse_unlike, trained_with
from fundus_seg.evaluation.floor import has_floor, keep_floor
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
    any_phantom,
    cases_of_readers,
    cases_to_score,
    data_of,
    photographs_of,
    readers_by,
    readers_digest,
    trained_settings,
    truth_name,
    truths_by,
    warn_of_odd_masks,
)
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES, Scoring, by_reader, chosen_by, combined
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import recorded_identity
from fundus_seg.runs.lease import leased
from fundus_seg.runs.provenance import versions
from fundus_seg.runs.record import is_probed, refuse_lost
from fundus_seg.seeding import reproducible


def evaluate(
    run: RunFolder,
    data: str | Path | None = None,
    *,
    checkpoint: CheckpointName = "best",
    scored: Scored = "holdout",
    scoring: Scoring | None = None,
    inference: Inference | None = None,
    views: Views | None = None,
    adapt_batch_norms: int | None = None,
    anatomical: bool | None = None,
    against_readers: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Score a run or an ensemble, by default on the test split of its holdout, or read the scores that are there.

    Of a file that was cut off, the whole cases are kept if they and the newly scored ones together are the file that
    was once written. All rows are written at once, after the last case: a run killed while it is scored keeps none.
    Scores that are there belong to the run as it was recorded: domains added to the data root later change nothing.
    The floor of the scores is written beside them, if it is not there yet (`evaluation.floor`), and their ceiling where
    two readers drew a case of the holdout, or more (`evaluation.ceiling`).

    Args:
        run: a trained run, or an ensemble of some.
        data: data root; None for the one that the run was trained on.
        checkpoint: `best`, `last`; of a run with an average, `average`; of one that was probed, `oracle`.
        scored: which cases; scores of either kind have a file of their own and never stand in one table.
        scoring: the protocol; None for the one of the run's own settings.
        inference: what the network sees, in place of what the protocol says.
        views: further views of a photograph that the network sees, in place of what the protocol says.
        adapt_batch_norms: as in `Scoring`, in place of what the protocol says; None leaves it to that.
        anatomical: as in `Scoring`, in place of what the protocol says; None leaves it to that.
        against_readers: whether each reader's own masks are the truth, which is a protocol of its own; of the holdout.
        progress: shows what is done.

    Raises:
        RunError: the run is not trained, has no such checkpoint, or another process is writing into it; or runs that
            are to be an ensemble were made with other photographs, or are scored otherwise.
        CheckpointError: the checkpoint is not of the network that the run's settings name, or its operator is a plugin
            that the caller has not loaded, or that has changed.
        DataError: the photographs are not those that the run was made with, cannot be read, are too large to be seen
            at their own size, or a source domain has none in the half for in-domain scores; or the holdout does not
            keep its readers apart.
    """
    runs = members_of(run)
    settings = [trained_settings(each) for each in runs]
    refuse_unlike(runs, settings, scoring=scoring is None)
    config, content = settings[0]
    scoring = scoring or config.scoring
    if inference is not None:
        scoring = scoring.model_copy(update={"inference": inference})
    if adapt_batch_norms is not None:
        scoring = scoring.model_copy(update={"adapt_batch_norms": adapt_batch_norms})
    if anatomical is not None:
        scoring = scoring.model_copy(update={"anatomical": anatomical})
    scoring = combined(scoring, ensemble=len(runs) > 1, views=views)
    root = data_of(content, data, progress=progress)
    for each in trained_with(runs, checkpoint):
        refuse_lost(each, [checkpoint])
    digests = [file_digest(each.checkpoint(checkpoint)) for each in runs]
    cases = cases_to_score(scored, runs[0], content, root, config)
    data_digests = {where: digest for where, digest in content["inputs"].items() if "/" in where}
    if against_readers:
        scoring, cases = by_reader(scoring), cases_of_readers(cases, root)
        data_digests[f"{config.holdout}/test/readers"] = readers_digest(cases)
    identity = recorded_identity(runs[0], config, content)
    members = {}
    if isinstance(run, RunEnsemble):
        identity, members = replace(identity, seed=0), dict(zip(map(str, run.members), digests, strict=True))
    meta = EvaluationMeta(
        protocol=scoring,
        protocol_digest=scoring.digest(),
        data=data_digests,
        phantom=any_phantom(cases, content, root),
        selection=chosen_by(config.train.selection, checkpoint),
        checkpoint=checkpoint,
        scored=scored,
        probed=any(is_probed(its) for _, its in settings),
        checkpoint_sha256=short_hash(digests, digits=64) if members else digests[0],
        members=members,
        code={setting: digest for setting, digest in content["inputs"].items() if "/" not in setting},
        run=identity,
        versions=versions(),
    )
    path = run.evaluation(scoring.digest(), checkpoint if scored == "holdout" else f"{checkpoint}-{scored}")
    marked = scored == "holdout" and not members and not against_readers
    rows = [(case.domain, case.name) for case in cases for _ in readers_by(scoring, case)]
    if _is_whole(path, _recorded(path, meta, progress), rows) and (run.has("DONE") or not marked):
        warn_of_odd_masks(cases, root, config, progress=progress)
        evaluation = read_evaluation(path)
        floor, ceiling = has_floor(run, evaluation, config), has_ceiling(run, evaluation, cases)
        if not (floor and ceiling):  # an earlier version scored the run
            try:
                with leased(run.path):
                    if not floor:
                        keep_floor(run, evaluation, cases, root, config, content, progress=progress)
                    keep_ceiling(run, evaluation, cases, progress=progress)
            except RunError as error:  # a folder that may only be read, or another process
                progress.left_out("floor" if ceiling else "ceiling", f"not kept ({one_line(error)})", [run.path])
        return evaluation
    with leased(run.path):
        recorded = _recorded(path, meta, SILENT)  # again: another process may just have scored it
        if not _is_whole(path, recorded, rows):
            from fundus_seg.evaluation.predictions import score_from, segmenter_of

            images = photographs_of(cases, root, config, progress=progress)
            predictor = segmenter_of(runs, [own for own, _ in settings], checkpoint, scoring)
            score = partial(score_from, predictor, cases, images, progress=progress, task=f"scoring {run.path}")
            with reproducible(config.train.threads):
                if (
                    recorded is None
                    or against_readers
                    or not recover(
                        path, recorded.cases_sha256, len(cases), lambda first: score(first)[0], progress=progress
                    )
                ):
                    truths = {
                        truth_name(case, scored) + (truth.reader and f"/{truth.reader}"): mask_digest(truth.told)
                        for case in cases
                        for truth in truths_by(scoring, case)
                    }
                    scores = meta.model_copy(update={"truth_digest": truth_digest(truths)})
                    write_evaluation(path, scores, *score(0))
        evaluation = read_evaluation(path)
        if not has_floor(run, evaluation, config):
            keep_floor(run, evaluation, cases, root, config, content, progress=progress)
        keep_ceiling(run, evaluation, cases, progress=progress)
        if marked:
            run.mark("DONE")
    return evaluation


def _is_whole(path: Path, recorded: EvaluationMeta | None, expected: Sequence[tuple[str, str]]) -> bool:
    """Whether the file is what was written, and its rows are possible and those of the expected domains and cases."""
    if recorded is None or not path.is_file() or file_digest(path) != recorded.cases_sha256:
        return False
    try:
        rows = read_evaluation(path).cases
    except RunError:
        return False
    return list(zip(rows["domain"], rows["case"], strict=True))[:: len(STRUCTURES)] == [*expected]


def _recorded(path: Path, meta: EvaluationMeta, progress: Progress) -> EvaluationMeta | None:
    """The JSON on disk if it is of these very scores, whatever versions made them; if it is not, `progress` is told."""
    if not path.exists() and not path.with_suffix(".json").exists():
        return None
    try:
        there = read_meta(path)
        unknown = ["code"] if there.code.items() <= meta.code.items() else []
        own = {key: getattr(meta, key) for key in ("versions", "cases_sha256", "truth_digest", *unknown)}
        if there.truth_digest and there.model_copy(update=own) == meta:
            return there
        reason = "of another checkpoint or other data"
    except RunError:
        reason = "of an older format, or without its JSON"
    progress.line(f"{path}: {reason}; scoring every case again")
    return None
