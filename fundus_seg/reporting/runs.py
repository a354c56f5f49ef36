"""Runs as they are reported: the case records on disk, with the settings that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.builtins import CheckpointName
from fundus_seg.config import ResolvedRun
from fundus_seg.errors import RunError
from fundus_seg.evaluation.records import Evaluation, read_evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import Scoring
from fundus_seg.runs.folder import trained_runs
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
    least: int = 1,
    progress: Progress = SILENT,
) -> list[ScoredRun]:
    """Every trained run at or below the paths, with the scores that it has; photographs are not needed.

    Args:
        paths: runs, or folders with runs below.
        checkpoint: `best`, `last`, `average` or `oracle`.
        scoring: the protocol; None for that of each run's own settings.
        least: least number of runs.
        progress: told which runs are left out: they failed, are not trained to their end, have no unseen domain, or are
            not scored.

    Raises:
        RunError: there are fewer runs, or none with an unseen domain, or none is scored.
    """
    found = []
    unscored = []
    trained = trained_runs(paths, least=least, progress=progress)
    reasons = runs_without_unseen(trained)
    if reasons and len(reasons) == len(trained) and least:
        run, why = next(iter(reasons.items()))
        raise RunError(f"{run.path}: {why}: no domain is unseen by its network; name runs with a holdout")
    tell_left_out(reasons, "so without an unseen domain", progress)
    for run in trained:
        if run in reasons:
            continue
        config = recorded_settings(run)
        path = run.evaluation((scoring or config.scoring).digest(), checkpoint)
        if not path.exists():
            unscored.append(run.path)
            continue
        found.append(ScoredRun(read_evaluation(path), config))
    if unscored and not found:
        raise RunError(f"{unscored[0]}: no scores of {checkpoint} by this protocol; run `fundus-seg evaluate` on it")
    what = f"without scores of {checkpoint} by this protocol"
    progress.left_out("run", what, unscored, "run `fundus-seg evaluate` on them")
    return found
