"""Progress on a terminal as bars, elsewhere as plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from fundus_seg.errors import StrictError, counted, printable
from fundus_seg.progress import Advance, LeftOut, left_out
from fundus_seg_cli.console import console

SILENCE = 60.0
"""Seconds of a long task after which a pipe or a log file gets a line."""


class Terminal:
    """Shows progress on standard error, so that standard output holds results alone.

    A line that was shown is not shown again: many runs are scored on the same photographs, and left out is left out.

    Attributes:
        told: what the command left out so far.
        warned: the warnings about the data that it gave, each once.
        said: when the last line was shown, by the monotonic clock; None before the first.
    """

    def __init__(self) -> None:
        self.console = console(stderr=True)
        self.told: list[LeftOut] = []
        self.warned: list[str] = []
        self.said: float | None = None
        self.shown: set[str] = set()

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """A bar on a terminal; elsewhere a line when the first task begins, and in long ones a line per minute."""
        if not self.console.is_terminal:
            yield self._lines(description, total)
            return
        with Progress(*_columns(self.console.width), console=self.console, transient=True) as bars:
            bar = bars.add_task(description, total=total, shown="")

            def advance(**shown: Any) -> None:
                bars.update(bar, advance=1, shown=_Shown(shown))

            yield advance

    def _lines(self, description: str, total: int) -> Advance:
        if self.said is None:
            self.line(f"{description}: {total} to do")
        done = 0

        def advance(**_: Any) -> None:
            nonlocal done
            done += 1
            if done < total and time.monotonic() - (self.said or 0) >= SILENCE:
                self.line(f"{description}: {done} of {total}")

        return advance

    def line(self, text: str) -> None:
        """One line that stays; control characters in it are shown, not obeyed."""
        if text not in self.shown:
            self.console.print(printable(text, keep="\n"))
            self.said = time.monotonic()
            self.shown.add(text)

    def left_out(self, what: str, reason: str, names: Iterable[object], fix: str = "") -> None:
        """One line about what is left out, which `check` remembers."""
        told = left_out(what, reason, names, fix)
        if told and told not in self.told:
            self.told.append(told)
            self.line(str(told))

    def warn(self, text: str) -> None:
        """One line about what is odd, which `check` counts; nothing where the same was said before."""
        if text not in self.warned:
            self.warned.append(text)
            self.line(f"warning: {text}")

    def check(self, *, strict: bool) -> None:
        """End the command with exit code 3 if it left something out or warned, and `--strict` was given.

        Raises:
            StrictError: that is so; it counts what was left out, and the warnings.
        """
        if not strict:
            return
        found = []
        if self.told:
            counts = "; ".join(f"{each.count} {each.what}, {each.reason}" for each in self.told)
            found.append(f"something was left out: {counts}")
        if self.warned:
            found.append(counted(len(self.warned), "warning"))
        if found:
            raise StrictError(f"--strict, and {'; and '.join(found)}")


def _columns(width: int) -> list[ProgressColumn]:
    """What stands beside the bar: less on a narrow terminal, so that neither the bar nor a number is cut."""
    whole = Column(no_wrap=True)
    columns = [
        _TextColumn(lambda task: task.description, Column(max_width=max(width // 3, 8), overflow="ellipsis")),
        BarColumn(bar_width=20 if width >= 80 else 10, table_column=whole),
        MofNCompleteColumn(table_column=whole),
    ]
    if width >= 60:
        columns.append(TimeRemainingColumn(table_column=whole))
    if width >= 80:
        columns.append(_TextColumn(lambda task: str(task.fields["shown"]), Column(overflow="ellipsis")))
    return columns


class _TextColumn(ProgressColumn):
    """A text on one line, in which nothing is interpreted."""

    def __init__(self, text: Callable[[Task], str], column: Column) -> None:
        self.text = text
        super().__init__(column)

    def render(self, task: Task) -> Text:
        return Text(printable(self.text(task)), no_wrap=True, overflow="ellipsis")


@dataclass(frozen=True)
class _Shown:
    """Values as text, made when the bar is drawn: a loss on a GPU is waited for then, not in every step."""

    values: Mapping[str, Any]

    def __str__(self) -> str:
        return "  ".join(f"{key} {_short(value)}" for key, value in self.values.items())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.3f}"
