"""Progress of an experiment: a live table on a terminal, elsewhere a line for each run that ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fundus_seg.errors import printable

if TYPE_CHECKING:
    from fundus_seg.experiments.experiment import OnOutcome
    from fundus_seg.experiments.grid_run import GridRun, Outcome


class GridProgress:
    """Shows the runs of an experiment; a context whose value is to be called with each run as it ends.

    Which runs are under way, and how far they are, is read from the disk, since other processes may train them.

    Args:
        runs: the runs of the experiment.
        console: where they are shown.
    """

    def __init__(self, runs: Sequence[GridRun], console: Console) -> None:
        self.console = console
        self.runs = runs
        self.open = list(runs)
        self.counts: Counter[str] = Counter()
        self.live = ExitStack()

    def __enter__(self) -> OnOutcome:
        self.started = time.monotonic()
        self.before = self._trained()
        if self.console.is_terminal:
            live = Live(get_renderable=self._shown, console=self.console, refresh_per_second=0.5, transient=True)
            self.live.enter_context(live)
        return self.tell

    def __exit__(self, *error: object) -> None:
        self.live.close()

    def tell(self, run: GridRun, outcome: Outcome) -> None:
        """Count a run that has ended; on a terminal only a failure gets a line that stays."""
        self.open.remove(run)
        self.counts[outcome.state] += 1
        if outcome.state == "failed" or not self.console.is_terminal:
            reason = f": {outcome.reason}" if outcome.reason else ""
            line = f"[{self.counts.total()}/{len(self.runs)}] {run.name}: {outcome.state}{reason}"
            self.console.print(printable(line))

    def _shown(self) -> Group:
        from fundus_seg.experiments.grid_run import status

        left = list(self.open)  # another thread removes runs
        running = Table("running", "epoch", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for run in left:
            if status(run) == "running":
                running.add_row(Text(printable(run.name), overflow="fold"), f"{_epochs(run)}/{run.config.train.epochs}")
        counts = (
            f"{self.counts['done']} done, {self.counts['failed']} failed, {len(left)} remaining of {len(self.runs)}"
        )
        return Group(running, Text(f"{counts}, estimated end {self._end(left)}"))

    def _end(self, left: Sequence[GridRun]) -> str:
        """When the remaining epochs will be trained, at the pace since the start."""
        ahead = sum(run.config.train.epochs - _epochs(run) for run in left)
        trained = self._trained() - self.before
        if trained <= 0:
            return "not known yet"
        seconds = ahead * (time.monotonic() - self.started) / trained
        return time.strftime("%a %H:%M", time.localtime(time.time() + seconds))

    def _trained(self) -> int:
        return sum(map(_epochs, self.runs))


def _epochs(run: GridRun) -> int:
    from fundus_seg.experiments.estimate import epoch_seconds

    return len(epoch_seconds(run.folder))
