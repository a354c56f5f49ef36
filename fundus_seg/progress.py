"""Progress of long work, independent of where it is shown: on a terminal, in a log file, or nowhere."""

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
        """Show one line that stays."""
        ...


class Silent:
    """Shows nothing: the default in the library."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """A context whose value does nothing."""
        return nullcontext(lambda **_: None)

    def line(self, text: str) -> None:
        """Show nothing."""


SILENT: Progress = Silent()
