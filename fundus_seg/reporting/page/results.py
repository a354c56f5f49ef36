"""What lies on disk for the page of some runs: scores of every kind, patients and the phantom apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from fundus_seg.builtins import CheckpointName, Views
from fundus_seg.errors import RunError
from fundus_seg.evaluation.external import comparable, external_evaluations
from fundus_seg.evaluation.records import Evaluation, read_evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import Scoring, combined
from fundus_seg.reporting.frames import by_kind, check_one_table, with_labels
from fundus_seg.reporting.runs import ScoredRun, scored_runs
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.origin import runs_without_unseen
from fundus_seg.runs.record import recorded_settings


@dataclass(frozen=True)
class Results:
    """The scores of one kind of photographs, of patients or of the phantom.

    Attributes:
        runs: the runs with an unseen domain and their scores on it.
        external: scores of masks that other tools made, by the same protocol.
        choices: scores on the unseen domains of every checkpoint of the runs that is scored.
        within: scores on the unseen domain and in-domain, of each of the runs that has both.
        seen: in-domain scores of the runs whose networks have seen every domain, with their settings.
    """

    runs: tuple[ScoredRun, ...]
    external: tuple[Evaluation, ...]
    choices: tuple[Evaluation, ...]
    within: tuple[tuple[Evaluation, Evaluation], ...]
    seen: tuple[ScoredRun, ...]

    @property
    def evaluations(self) -> list[Evaluation]:
        """What stands in the tables of unseen domains."""
        return [*(run.evaluation for run in self.runs), *self.external]

    @property
    def every_run(self) -> list[ScoredRun]:
        """The runs with an unseen domain, then those without."""
        return [*self.runs, *self.seen]

    @property
    def phantom(self) -> bool:
        """Whether the photographs are synthetic."""
        return any(each.meta.phantom for each in (*self.evaluations, *(run.evaluation for run in self.seen)))


def find_results(
    paths: Sequence[Path],
    *,
    checkpoint: CheckpointName = "best",
    scoring: Scoring | None = None,
    ensemble: bool = False,
    views: Views | None = None,
    labels: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> list[Results]:
    """The results at or below some folders: those on patients, then those on the phantom; a kind without any is absent.

    Args:
        paths: folders of runs, or folders with runs below them.
        checkpoint: whose scores the page is of.
        scoring: the protocol; None for that of each run's own settings.
        ensemble: whether runs that differ in their seed alone are read as one.
        views: further views of a photograph, in place of what the protocol says.
        labels: short names of columns, as `with_labels` takes them.
        progress: told what is left out.

    Raises:
        RunError: there are no scores, or a file of them is damaged.
        ProtocolError: scores on unseen domains that must not stand in one table.
        UsageError: labels that do not fit.
    """
    runs = scored_runs(
        paths, checkpoint=checkpoint, scoring=scoring, ensemble=ensemble, views=views, least=0, progress=progress
    )
    own = [run.evaluation for run in runs]
    external = comparable(external_evaluations(paths), own, scoring=scoring, progress=progress)
    choices = [there for each in own for there in _choices(each)]
    within = [(each, there) for each in own if (there := _beside(each, f"{each.meta.checkpoint}-in-domain"))]
    seen = list(_seen(paths, checkpoint, scoring, views))
    if not (own or external or seen):
        raise RunError(f"{', '.join(map(str, paths))}: no scores below; `fundus-seg evaluate` makes them")
    for kind in by_kind([*own, *external]):
        check_one_table(kind)
    every = [*own, *external, *choices, *(there for _, there in within), *(run.evaluation for run in seen)]
    named = {each.path: each for each in with_labels(every, labels or {})}

    def of(evaluations: Sequence[Evaluation], phantom: bool) -> list[Evaluation]:
        return [named[each.path] for each in evaluations if each.meta.phantom is phantom]

    def scored(these: Sequence[ScoredRun], phantom: bool) -> tuple[ScoredRun, ...]:
        renamed = [replace(run, evaluation=named[run.evaluation.path]) for run in these]
        return tuple(run for run in renamed if run.evaluation.meta.phantom is phantom)

    return [
        Results(
            scored(runs, phantom),
            tuple(of(external, phantom)),
            tuple(of(choices, phantom)),
            tuple((named[out.path], named[inside.path]) for out, inside in within if out.meta.phantom is phantom),
            scored(seen, phantom),
        )
        for phantom in (kind[0].meta.phantom for kind in by_kind(every))
    ]


def _choices(evaluation: Evaluation) -> Iterator[Evaluation]:
    """The scores of each checkpoint of the same run, by the same protocol."""
    for name in get_args(CheckpointName):
        if name == evaluation.meta.checkpoint:
            yield evaluation
        elif there := _beside(evaluation, name):
            yield there


def _beside(evaluation: Evaluation, name: str) -> Evaluation | None:
    """Further scores of the same run or ensemble by the same protocol, if they are there."""
    path = RunFolder(evaluation.path.parents[1]).evaluation(evaluation.meta.protocol_digest, name)
    return read_evaluation(path) if path.is_file() else None


def _seen(
    paths: Sequence[Path], checkpoint: CheckpointName, scoring: Scoring | None, views: Views | None
) -> Iterator[ScoredRun]:
    """The in-domain scores of runs without an unseen domain; `scored_runs` has told of these runs."""
    for run in runs_without_unseen(trained_runs(paths, least=0)):
        config = recorded_settings(run)
        path = run.evaluation(combined(scoring or config.scoring, views=views).digest(), f"{checkpoint}-in-domain")
        if path.is_file():
            yield ScoredRun(read_evaluation(path), config)
