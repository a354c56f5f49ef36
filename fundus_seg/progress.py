"""How long work tells what it is doing, without knowing where the words go: a terminal, a log file, nowhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[..., None]
"""Called after each unit of work; keyword arguments (`loss=0.31`) stand beside the bar, formatted only when shown."""


class Progress(Protocol):
    """A place that shows progress."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Begin `total` units of work; the context's value is called once for each."""
        ...

    def line(self, text: str) -> None:
        """Say one line that stays."""
        ...


class Silent:
    """Shows nothing: the default in the library."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """A context whose value does nothing."""
        return nullcontext(lambda **_: None)

    def line(self, text: str) -> None:
        """Say nothing."""


SILENT: Progress = Silent()
