"""A whole experiment: its photographs are prepared, its runs are trained and evaluated, its scores are collected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fundus_seg.errors import RunError, counted
from fundus_seg.experiments.executors import Executor
from fundus_seg.experiments.grid import prepare, run_grid
from fundus_seg.experiments.grid_run import GridRun, Outcome, clear_failure, read_scores
from fundus_seg.progress import SILENT, Progress

if TYPE_CHECKING:
    from fundus_seg.evaluation.records import Evaluation

OnOutcome = Callable[[GridRun, Outcome], None]
"""Called with each run as it ends."""


@dataclass(frozen=True)
class Failure:
    """A run without scores, and why, in one line."""

    run: GridRun
    reason: str


@dataclass
class Result:
    """What an experiment has come to.

    Attributes:
        evaluations: the scores of the runs that are done, in the order of the plan, each with its column's label.
        failures: the other runs.
    """

    evaluations: list[Evaluation] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def failure_text(self) -> str:
        """How many runs failed, then a line for each."""
        total = len(self.failures) + len(self.evaluations)
        listed = "".join(f"\n  {failure.run.name}: {failure.reason}" for failure in self.failures)
        return f"{len(self.failures)} of {counted(total, 'run')} failed; --retry-failed takes them up again:{listed}"

    def check(self) -> None:
        """Raise a RunError that lists the failed runs, if there are any."""
        if self.failures:
            raise RunError(self.failure_text)


def run_experiment(
    runs: Sequence[GridRun],
    executor: Executor,
    *,
    retry_failed: bool = False,
    progress: Progress = SILENT,
    watch: AbstractContextManager[OnOutcome] | None = None,
) -> Result:
    """Train and evaluate the runs that are not done, and collect the scores of all.

    The same call goes on wherever it was stopped; a second one beside it, in another process or on another machine that
    shares the folder, takes a part of the work. A run that fails does not stop the others.

    Args:
        runs: as `plan` gives them.
        executor: who works on them; see `choose_executor`.
        retry_failed: whether runs that failed before are taken up again.
        progress: where to show how photographs are prepared.
        watch: entered when the photographs are prepared; its value is called with each run as it ends.

    Raises:
        RunError: a folder holds a run with other settings or inputs.
        UsageError: a plugin or the executor cannot be used.
        DataError: no run is done, and none has photographs that can be used.
    """
    if retry_failed:
        for run in runs:
            clear_failure(run)
    outcomes = prepare(runs, progress=progress)
    for fault in dict.fromkeys(f"{fault.reason}\n{fault.details}" for fault in outcomes.values() if fault.details):
        progress.line(fault)
    with watch or nullcontext(_ignore) as on_outcome:
        for run, outcome in outcomes.items():
            on_outcome(run, outcome)
        for run, outcome in run_grid([run for run in runs if run not in outcomes], executor):
            on_outcome(run, outcome)
            outcomes[run] = outcome
    return _collect(runs, outcomes)


def _ignore(run: GridRun, outcome: Outcome) -> None:
    """What happens with the outcome of a run that nobody watches."""


def _collect(runs: Sequence[GridRun], outcomes: dict[GridRun, Outcome]) -> Result:
    """The scores on the disk; damaged ones count as a failure, and the next start makes them again."""
    result = Result()
    for run in runs:
        if outcomes[run].state == "failed":
            result.failures.append(Failure(run, outcomes[run].reason))
            continue
        try:
            result.evaluations.append(replace(read_scores(run), label=run.label))
        except RunError as error:
            result.failures.append(Failure(run, str(error)))
    return result
