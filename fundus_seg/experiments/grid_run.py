"""One cell of a grid: a run that is trained and evaluated, and where it stands, read from its folder alone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fundus_seg.config import PlannedRun, RunConfig, resolve_sources
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import FundusSegError, RunError
from fundus_seg.evaluation.records import Evaluation, read_evaluation
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import run_folder
from fundus_seg.runs.lease import holder
from fundus_seg.runs.record import recorded_settings

Status = Literal["done", "running", "failed", "trained", "started", "missing"]
"""`done`: trained and evaluated; `started`: interrupted, goes on after its last epoch."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid; picklable, so that any process or machine can take it.

    Attributes:
        config: settings, sources named.
        data: what `open_root` takes, absolute.
        out: folder of all runs, absolute.
        folder: the run's own, below `out`.
        probe: whether the holdout is scored after each epoch.
    """

    config: PlannedRun
    data: str
    out: Path
    folder: RunFolder
    probe: bool = False

    @classmethod
    def of(cls, config: RunConfig, root: DataRoot, out: Path, *, probe: bool = False) -> Cell:
        """The cell of some settings.

        Threads belong to the run, not to whoever computes it: one, unless the settings name them. A run that is there
        already keeps its own.

        Raises:
            UsageError: domains that the data root does not hold.
        """
        planned = resolve_sources(config, root.domains, where=root.path)
        folder = run_folder(planned, out.resolve(), experiment=root.experiment, phantom=root.phantom)
        if planned.train.threads is None and not folder.config.exists():
            planned = planned.model_copy(update={"train": planned.train.model_copy(update={"threads": 1})})
        return cls(planned, root.name, out.resolve(), folder, probe)

    @property
    def threads(self) -> int:
        """CPU threads of the run: those in its settings, or those that the run that is there was begun with."""
        given = self.config.train.threads
        return recorded_settings(self.folder).train.threads if given is None else given

    @property
    def name(self) -> str:
        """`A tvconv seed 0`."""
        return f"{self.config.holdout} {self.folder.path.parent.name} seed {self.config.seed}"

    @property
    def evaluation(self) -> Path:
        """Where its case records lie once it is done."""
        return self.folder.evaluation(self.config.scoring.digest(), "best")


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        state: `busy`: another process is at it.
        reason: of all but `done`, in one line.
        details: lines more, such as the traceback of an error that nobody foresaw.
    """

    state: Literal["done", "failed", "busy"]
    reason: str = ""
    details: str = ""


def status(cell: Cell) -> Status:
    """Where a cell stands, from the disk alone."""
    if cell.folder.has("DONE") and cell.evaluation.exists():
        return "done"
    if holder(cell.folder.path):
        return "running"
    if cell.folder.has("FAILED"):
        return "failed"
    if cell.folder.has("TRAINED"):
        return "trained"
    return "started" if cell.folder.config.exists() else "missing"


def settled(cell: Cell) -> Outcome | None:
    """The outcome of a cell that there is nothing to do for: done, failed before, or in the hands of another."""
    match status(cell):
        case "done":
            return Outcome("done")
        case "failed":
            return Outcome("failed", failure(cell))
        case "running":
            return Outcome("busy", f"process {holder(cell.folder.path)} is at it")
    return None


def failure(cell: Cell) -> str:
    """Why a cell failed, in one line."""
    with contextlib.suppress(OSError, IndexError):
        return (cell.folder.path / "FAILED").read_text("utf8").splitlines()[0]
    return "unknown"


def mark_failed(cell: Cell, outcome: Outcome) -> None:
    """Leave the reason in the run's folder, where the disk lets it: the next start then passes the cell over.

    Not in one that others have settled, or are at: their mark says more, and a cell at work has not failed.
    """
    if settled(cell) is None:
        with contextlib.suppress(RunError):
            cell.folder.mark("FAILED", f"{outcome.reason}\n{outcome.details}")


def forgive(cell: Cell) -> None:
    """Take the mark of failure away, so that the cell is taken up again where it stopped."""
    (cell.folder.path / "FAILED").unlink(missing_ok=True)


def read_scores(cell: Cell) -> Evaluation:
    """The case records of a cell that is done; if they are damaged, the next start scores it again.

    Raises:
        RunError: they are.
    """
    try:
        return read_evaluation(cell.evaluation)
    except RunError:
        (cell.folder.path / "DONE").unlink(missing_ok=True)
        raise


def failed(error: FundusSegError) -> Outcome:
    """The outcome of a cell that an error has ended, whose first line is the reason."""
    first, _, rest = str(error).partition("\n")
    return Outcome("failed", first, rest)
