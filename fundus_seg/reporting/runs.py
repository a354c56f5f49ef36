"""Runs as they are reported: the case records on disk, with the settings that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.builtins import CheckpointName, Views
from fundus_seg.config import ResolvedRun
from fundus_seg.errors import RunError
from fundus_seg.evaluation.ensembles import ensembles_of, members_of, trained_with
from fundus_seg.evaluation.records import Evaluation, read_evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import Scoring, combined
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.origin import runs_without_unseen, tell_left_out
from fundus_seg.runs.record import recorded_settings


@dataclass(frozen=True)
class ScoredRun:
    """A run's scores and settings."""

    evaluation: Evaluation
    config: ResolvedRun


def scored_runs(
    paths: Sequence[Path],
    *,
    checkpoint: CheckpointName = "best",
    scoring: Scoring | None = None,
    ensemble: bool = False,
    views: Views | None = None,
    least: int = 1,
    progress: Progress = SILENT,
) -> list[ScoredRun]:
    """Every trained run at or below the paths, with the scores that it has; photographs are not needed.

    Args:
        paths: runs, or folders with runs below.
        checkpoint: `best`, `last`, `average` or `oracle`.
        scoring: the protocol; None for that of each run's own settings.
        ensemble: whether runs that differ in their seed alone are read as one; the settings are those of the first.
        views: further views of a photograph that the networks saw, in place of what the protocol says.
        least: least number of runs.
        progress: told which runs are left out: they failed, are not trained to their end, have no unseen domain, or are
            not scored, or have no such checkpoint.

    Raises:
        RunError: there are fewer runs, or none with an unseen domain or the checkpoint, or none is scored.
    """
    found = []
    unscored = []
    trained = trained_runs(paths, least=least, progress=progress)
    reasons = runs_without_unseen(trained)
    if reasons and len(reasons) == len(trained) and least:
        run, why = next(iter(reasons.items()))
        raise RunError(f"{run.path}: {why}: no domain is unseen by its network; name runs with a holdout")
    tell_left_out(reasons, "so without an unseen domain", progress)
    unseen = [run for run in trained if run not in reasons]
    units: Sequence[RunFolder] = ensembles_of(unseen, progress=progress) if ensemble else unseen
    for run in trained_with(units, checkpoint, progress=progress):
        config = recorded_settings(members_of(run)[0])
        protocol = combined(scoring or config.scoring, ensemble=ensemble, views=views)
        path = run.evaluation(protocol.digest(), checkpoint)
        if not path.exists():
            unscored.append(run.path)
            continue
        found.append(ScoredRun(read_evaluation(path), config))
    command = f"`fundus-seg evaluate{' --ensemble' * ensemble}{f' --views {views}' if views else ''}`"
    if unscored and not found:
        raise RunError(f"{unscored[0]}: no scores of {checkpoint} by this protocol; run {command} on it")
    what = f"without scores of {checkpoint} by this protocol"
    progress.left_out("ensemble" if ensemble else "run", what, unscored, f"run {command} on them")
    return found
