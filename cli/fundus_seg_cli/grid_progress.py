"""Progress of a grid: a live table on a terminal, elsewhere a line for each cell that ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import Cell, Outcome


class GridProgress:
    """Told of outcomes; which cells are running, and how far they are, it reads from the disk.

    Args:
        cells: of the grid.
        console: where to show it.
    """

    def __init__(self, cells: Sequence[Cell], console: Console) -> None:
        self.console = console
        self.cells = cells
        self.open = list(cells)
        self.counts: Counter[str] = Counter()
        self.started = time.monotonic()
        self.before = self._trained()
        self.live = ExitStack()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            live = Live(get_renderable=self._shown, console=self.console, refresh_per_second=0.5, transient=True)
            self.live.enter_context(live)
        return self

    def __exit__(self, *error: object) -> None:
        self.live.close()

    def tell(self, cell: Cell, outcome: Outcome) -> None:
        """A cell has come to its end; on a terminal only a failure gets a line that stays."""
        self.open.remove(cell)
        self.counts[outcome.state] += 1
        if outcome.state == "failed" or not self.console.is_terminal:
            reason = f": {outcome.reason}" if outcome.reason else ""
            line = f"[{self.counts.total()}/{len(self.cells)}] {cell.name}: {outcome.state}{reason}"
            self.console.print(line, highlight=False, markup=False)

    def _shown(self) -> Group:
        from fundus_seg.experiments.grid_run import status

        left = list(self.open)  # another thread takes cells out
        running = Table("running", "epoch", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for cell in left:
            if status(cell) == "running":
                running.add_row(cell.name, f"{_epochs(cell)}/{cell.config.train.epochs}")
        counts = (
            f"{self.counts['done']} done, {self.counts['failed']} failed, {len(left)} remaining of {len(self.cells)}"
        )
        return Group(running, Text(f"{counts}, estimated end {self._end(left)}"))

    def _end(self, left: Sequence[Cell]) -> str:
        """When the epochs that are left are trained, at the pace since the start."""
        ahead = sum(cell.config.train.epochs - _epochs(cell) for cell in left)
        trained = self._trained() - self.before
        if trained <= 0:
            return "not known yet"
        seconds = ahead * (time.monotonic() - self.started) / trained
        return time.strftime("%a %H:%M", time.localtime(time.time() + seconds))

    def _trained(self) -> int:
        return sum(map(_epochs, self.cells))


def _epochs(cell: Cell) -> int:
    from fundus_seg.experiments.estimate import epoch_seconds

    return len(epoch_seconds(cell.folder))
