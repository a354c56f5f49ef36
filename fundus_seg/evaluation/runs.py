"""Many runs evaluated at once: what `fundus-seg evaluate` does before it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from fundus_seg.builtins import CheckpointName, Inference, PictureFormat, Views
from fundus_seg.errors import NoReadersError, UntrustedError, counted
from fundus_seg.evaluation.ensembles import ensembles_of, members_of, trained_with
from fundus_seg.evaluation.external import comparable, external_evaluations
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.inference.members import warn_of_mirroring
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import Scoring
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.origin import runs_without_unseen, tell_left_out
from fundus_seg.runs.record import checkpoints_made, recorded_settings, refuse_lost

Checkpoints = CheckpointName | Literal["all"]


@dataclass(frozen=True)
class EvaluatedRuns:
    """Scores of many runs.

    Attributes:
        evaluations: scores on the holdouts, of every run and checkpoint, then of masks that other tools made.
        pairs: for each run and checkpoint its scores on the holdout and those in-domain; empty unless asked for.
        seen: in-domain scores of the runs whose networks have seen every domain, which stand in no table of holdouts.
        by_reader: scores on the holdouts against each of their readers, which have a table of their own; empty unless
            asked for.
        overlays: paths of the pictures that were drawn.
        anatomical: for each run and checkpoint its scores on the holdout without `Scoring.anatomical` and with it;
            empty unless asked for.
    """

    evaluations: list[Evaluation]
    pairs: list[tuple[Evaluation, Evaluation]]
    overlays: list[Path]
    seen: list[Evaluation]
    by_reader: list[Evaluation] = field(default_factory=list)
    anatomical: list[tuple[Evaluation, Evaluation]] = field(default_factory=list)


def evaluate_runs(
    folders: Sequence[Path],
    data: str | Path | None = None,
    *,
    checkpoints: Checkpoints = "best",
    in_domain: bool = False,
    scoring: Scoring | None = None,
    inference: Inference | None = None,
    views: Views | None = None,
    ensemble: bool = False,
    adapt_batch_norms: int | None = None,
    against_readers: bool = False,
    with_anatomical: bool = False,
    overlays: int = 0,
    overlay_format: PictureFormat = "jpeg",
    progress: Progress = SILENT,
) -> EvaluatedRuns:
    """Score every trained run at or below some folders, or read the scores that are there already.

    A run by whose network no domain is unseen (`why_not_unseen`) is scored in-domain alone. Beside runs with a holdout,
    `progress` is told that it is left out of their table.

    What `score_masks` has kept below the folders is read too; where it cannot stand in one table with the runs,
    `progress` is told why it is left out. Plugins that the runs' networks need must have been loaded before.

    Args:
        folders: runs, or folders with runs below.
        data: data root; None for the one that each run was trained on.
        checkpoints: which checkpoint of each run, or `all` that it has, one for each selection.
        in_domain: whether to score the source domains too.
        scoring: the protocol; None for that of each run's own settings.
        inference: what the network sees, in place of what the protocol says.
        views: further views of a photograph that the network sees, in place of what the protocol says.
        ensemble: whether the runs that differ in their seed alone are scored as one, by the mean of their
            probabilities, and no run alone.
        adapt_batch_norms: as in `Scoring`, in place of what the protocol says; None leaves it to that.
        against_readers: whether to score against each reader of the holdouts too.
        with_anatomical: whether to score each run without and with anatomical masks too (`Scoring.anatomical`).
        overlays: number of cases to draw for each run and checkpoint, from the worst to the best.
        overlay_format: format of the pictures.
        progress: shows what is done.

    Raises:
        RunError, CheckpointError, DataError: as `evaluate`; or there is nothing to read below the folders.
    """
    from_tools = external_evaluations(folders)
    evaluations: list[Evaluation] = []
    pairs: list[tuple[Evaluation, Evaluation]] = []
    drawn: list[Path] = []
    seen: list[Evaluation] = []
    against: list[Evaluation] = []
    anatomical: list[tuple[Evaluation, Evaluation]] = []
    without_readers: dict[str, list[Path]] = {}
    untrusted: list[tuple[Path, UntrustedError]] = []
    trained = trained_runs(folders, least=0 if from_tools else 1, progress=progress)
    reasons = runs_without_unseen(trained)
    units: Sequence[RunFolder] = ensembles_of(trained, progress=progress) if ensemble else trained
    if checkpoints != "all":
        units = trained_with(units, checkpoints, progress=progress)
    for run in units:  # before any is scored
        for each in members_of(run):
            refuse_lost(each, checkpoints_of(run) if checkpoints == "all" else [checkpoints])
    for run in units:
        names = checkpoints_of(run) if checkpoints == "all" else [checkpoints]
        score = partial(
            evaluate,
            run,
            data,
            scoring=scoring,
            inference=inference,
            views=views,
            adapt_batch_norms=adapt_batch_norms,
            progress=progress,
        )
        for name in names:
            try:
                if any(each in reasons for each in members_of(run)):
                    seen.append(score(checkpoint=name, scored="in-domain"))
                    continue
                evaluation = score(checkpoint=name)
            except UntrustedError as error:
                untrusted.append((run.path, error))
                break
            evaluations.append(evaluation)
            if against_readers:
                try:
                    against.append(score(checkpoint=name, against_readers=True))
                except NoReadersError as error:
                    without_readers.setdefault(str(error), []).append(run.path)
            if with_anatomical:
                plain, made = (score(checkpoint=name, anatomical=each) for each in (False, True))
                anatomical.append((plain, made))
            if in_domain:
                pairs.append((evaluation, score(checkpoint=name, scored="in-domain")))
            if overlays:
                from fundus_seg.evaluation.predictions import write_overlays

                written = write_overlays(run, evaluation, overlays, data, form=overlay_format, progress=progress)
                if written:
                    progress.line(f"{counted(len(written), 'overlay')} in {written[0].parent}")
                drawn += written
    _tell_not_drawn(against, progress)
    for reason, paths in without_readers.items():
        progress.left_out("run", f"in scores against readers ({reason})", paths)
    if views == "flip":
        configs = [recorded_settings(run) for run in trained]
        warn_of_mirroring((each.one_sided for each in configs), progress)
    tell_untrusted(untrusted, progress, alone=not evaluations and not seen)
    if evaluations:
        tell_left_out(reasons, "of the table of unseen domains (in-domain scores have their own)", progress)
    else:
        for run, why in reasons.items():
            progress.line(f"{run.path}: {why}: it has in-domain scores alone")
    if overlays:
        tell_left_out(reasons, "of the overlays (`fundus-seg predict --overlay` draws any photograph)", progress)
    if checkpoints == "all":
        unprobed = [run.path for run in trained if run not in reasons and "oracle" not in checkpoints_of(run)]
        progress.left_out("run", "trained without --probe-holdout, in the column of selection oracle", unprobed)
    evaluations += comparable(from_tools, evaluations, scoring=scoring, progress=progress)
    return EvaluatedRuns(evaluations, pairs, drawn, seen, against, anatomical)


def _tell_not_drawn(against: Sequence[Evaluation], progress: Progress) -> None:
    """Tell once for each unseen domain which cases its readers have not drawn."""
    for holdout, evaluation in {each.meta.run.holdout: each for each in against}.items():
        drawn = evaluation.cases.groupby("reader")["case"].unique()
        for reader, names in drawn.items():
            lacking = sorted({*evaluation.cases["case"]} - {*names})
            progress.left_out("case", f"of {holdout} not drawn by reader {reader}, in scores against {reader}", lacking)


def tell_untrusted(untrusted: Sequence[tuple[Path, UntrustedError]], progress: Progress, *, alone: bool) -> None:
    """Tell that runs are left out since the caller has not loaded their operators; raise the first error if `alone`."""
    if untrusted and alone:
        raise untrusted[0][1]
    trust = " ".join(dict.fromkeys(f"--trust {error.operator}" for _, error in untrusted))
    progress.left_out("run", "of an operator that is code of your own", [path for path, _ in untrusted], trust)


def checkpoints_of(run: RunFolder) -> list[CheckpointName]:
    """The checkpoints of a trained run: `last`, what its selection chose, and `average` and `oracle` if it has them.

    Of an ensemble, those that all its members have.

    Raises:
        RunError: config.yaml is not that of a run.
    """
    by_selection: dict[str, CheckpointName] = {"last": "last"}
    members = members_of(run)
    made = [checkpoints_made(each) for each in members]
    further: tuple[CheckpointName, ...] = ("oracle", "average")
    by_selection |= {name: name for name in further if all(name in own for own in made)}
    by_selection[recorded_settings(members[0]).train.selection] = "best"
    return list(by_selection.values())
