"""One planned run of an experiment, and where it stands, which is read from its folder alone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fundus_seg.config import PlannedRun, RunConfig, resolve_sources
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import FundusSegError, RunError
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import operator_name, run_folder
from fundus_seg.runs.lease import holder
from fundus_seg.runs.record import recorded_settings

if TYPE_CHECKING:
    from fundus_seg.evaluation.records import Evaluation

Status = Literal["done", "running", "failed", "trained", "started", "missing"]
"""`done`: trained and evaluated; `started`: interrupted, and will go on after its last whole epoch."""


@dataclass(frozen=True)
class GridRun:
    """One run of an experiment; picklable, so that any process or machine can take it up.

    Attributes:
        config: the settings, with the sources named.
        data: the data root as `open_root` takes it; an absolute path, or `phantom`.
        out: the folder of all runs; absolute.
        recipe: what differs from the preset, as the run's identity has it.
        folder: the folder of this run, below `out`.
        probe: whether the holdout is scored after each epoch.
        label: what lines and tables call its column, which other experiments may call otherwise.
    """

    config: PlannedRun
    data: str
    out: Path
    recipe: str
    folder: RunFolder
    probe: bool = False
    label: str = ""

    @classmethod
    def of(
        cls, config: RunConfig, root: DataRoot, out: Path, *, probe: bool = False, label: str | None = None
    ) -> GridRun:
        """The run with these settings; without a label its operator and recipe stand in its place.

        The number of threads belongs to the run, not to the process that computes it: it is one, unless the settings
        name another. A run that exists already keeps the number that it was begun with.

        Raises:
            UsageError: the settings name domains that the data root does not hold.
        """
        planned = resolve_sources(config, root.domains, where=root.path)
        recipe = planned.recipe(all_domains=root.experiment)
        folder = run_folder(planned, recipe, out.resolve(), phantom=root.phantom)
        if planned.train.threads is None and not folder.begun:
            planned = planned.model_copy(update={"train": planned.train.model_copy(update={"threads": 1})})
        named = operator_name(planned.operator, recipe) if label is None else label
        return cls(planned, root.name, out.resolve(), recipe, folder, probe, named)

    @property
    def threads(self) -> int:
        """The run's CPU threads: those of its settings, or those that the existing run was begun with."""
        given = self.config.train.threads
        return recorded_settings(self.folder).train.threads if given is None else given

    @property
    def name(self) -> str:
        """The run's name in messages: `A tvconv seed 0`."""
        return f"{self.config.holdout} {self.label} seed {self.config.seed}"

    @property
    def operator(self) -> str:
        """Its operator and recipe, as its folder names them: `tvconv-lr=0.0003-47b65c81`."""
        return operator_name(self.config.operator, self.recipe)

    @property
    def evaluation(self) -> Path:
        """The file that holds the case records of a run that is done."""
        return self.folder.evaluation(self.config.scoring.digest(), "best")


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        state: `done`, `failed`, or `busy` if another process is working on the run.
        reason: why the run is not done, in one line.
        details: further lines, such as the traceback of an unexpected error.
    """

    state: Literal["done", "failed", "busy"]
    reason: str = ""
    details: str = ""

    @classmethod
    def of_error(cls, error: FundusSegError) -> Outcome:
        """The outcome of a run that the error has ended; the first line of its message is the reason."""
        first, _, rest = str(error).partition("\n")
        return cls("failed", first, rest)


def status(run: GridRun) -> Status:
    """Where a run stands, from the disk alone."""
    if run.folder.has("DONE") and run.evaluation.exists():
        return "done"
    if holder(run.folder.path):
        return "running"
    if run.folder.has("FAILED"):
        return "failed"
    if run.folder.has("TRAINED"):
        return "trained"
    return "started" if run.folder.config.exists() else "missing"


def settled(run: GridRun) -> Outcome | None:
    """The outcome of a run that needs no work here: it is done, it has failed, or another process works on it."""
    match status(run):
        case "done":
            return Outcome("done")
        case "failed":
            return Outcome("failed", failure_reason(run))
        case "running":
            return Outcome("busy", f"process {holder(run.folder.path)} is working on it")
    return None


def failure_reason(run: GridRun) -> str:
    """Why the run failed, in one line."""
    with contextlib.suppress(OSError, IndexError):
        return (run.folder.path / "FAILED").read_text("utf8").splitlines()[0]
    return "unknown"


def record_failure(run: GridRun, outcome: Outcome) -> None:
    """Write the reason into the run's folder, if the disk allows it; the next start then skips the run.

    Nothing is written if another process has finished the run or is working on it: then the run has not failed.
    """
    if settled(run) is None:
        with contextlib.suppress(RunError):
            run.folder.mark("FAILED", f"{outcome.reason}\n{outcome.details}")


def clear_failure(run: GridRun) -> None:
    """Delete the record of a failure, so that the run goes on from where it stopped."""
    (run.folder.path / "FAILED").unlink(missing_ok=True)


def read_scores(run: GridRun) -> Evaluation:
    """The case records of a run that is done. If they are damaged, the next start scores the run again.

    Raises:
        RunError: the case records are damaged.
    """
    try:
        from fundus_seg.evaluation.records import read_evaluation  # pandas, which no plan needs

        return read_evaluation(run.evaluation)
    except RunError:
        (run.folder.path / "DONE").unlink(missing_ok=True)
        raise
