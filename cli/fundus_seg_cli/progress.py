"""Progress on a terminal as bars, elsewhere as plain lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fundus_seg.errors import StrictError, printable
from fundus_seg.progress import Advance, LeftOut, left_out


class Terminal:
    """Shows progress on standard error, so that standard output holds results alone.

    Attributes:
        told: what the command left out so far.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, soft_wrap=True)
        self.told: list[LeftOut] = []

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """A bar on a terminal; elsewhere nothing, since `line` tells what was done."""
        if not self.console.is_terminal:
            yield lambda **_: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as bars:
            bar = bars.add_task(description, total=total, shown="")

            def advance(**shown: Any) -> None:
                bars.update(bar, advance=1, shown=_Shown(shown))

            yield advance

    def line(self, text: str) -> None:
        """One line that stays; control characters in it are shown, not obeyed."""
        self.console.print(printable(text, keep="\n"), highlight=False, markup=False, emoji=False)

    def left_out(self, what: str, reason: str, names: Iterable[object], fix: str = "") -> None:
        """One line about what is left out, which `check` remembers."""
        if told := left_out(what, reason, names, fix):
            self.told.append(told)
            self.line(str(told))

    def check(self, *, strict: bool) -> None:
        """End the command with exit code 3 if it left something out and `--strict` was given.

        Raises:
            StrictError: that is so; it counts what was left out.
        """
        if strict and self.told:
            counts = "; ".join(f"{each.count} {each.what}, {each.reason}" for each in self.told)
            raise StrictError(f"--strict, and something was left out: {counts}")


@dataclass(frozen=True)
class _Shown:
    """Values as text, made when the bar is drawn: a loss on a GPU is waited for then, not in every step."""

    values: Mapping[str, Any]

    def __str__(self) -> str:
        return "  ".join(f"{key} {_short(value)}" for key, value in self.values.items())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.3f}"
