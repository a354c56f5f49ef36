"""Progress of long work, independent of where it is shown: on a terminal, in a log file, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from fundus_seg.errors import printable

Advance = Callable[..., None]
"""Called after each unit of work; keyword arguments (`loss=0.31`) stand beside the bar, formatted only when shown."""


_EXAMPLES = 3
"""Names that the line about what was left out gives at most."""


@dataclass(frozen=True)
class LeftOut:
    """Things that a command was given, or found where it looked, and did not use.

    `str(left_out)` is the one line to print: `left out: 2 runs, not trained to their end: runs/a, runs/b; <fix>`.

    Attributes:
        what: the things, in the plural where there are several: `runs`, `photographs`, `file`.
        reason: why they were left out, all for the same reason.
        names: a name or path of each; their number is the count.
        fix: what the user can do about it; may be empty.
    """

    what: str
    reason: str
    names: tuple[str, ...]
    fix: str = ""

    def __str__(self) -> str:
        more = f" and {self.count - _EXAMPLES} more" if self.count > _EXAMPLES else ""
        named = ", ".join(printable(name) for name in self.names[:_EXAMPLES])
        return f"left out: {self.count} {self.what}, {self.reason}: {named}{more}{self.fix and f'; {self.fix}'}"

    @property
    def count(self) -> int:
        """How many things were left out."""
        return len(self.names)


class Progress(Protocol):
    """A place that shows progress."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Begin `total` units of work; the context's value is called once for each."""
        ...

    def line(self, text: str) -> None:
        """Show one line that stays."""
        ...

    def left_out(self, what: str, reason: str, names: Iterable[object], fix: str = "") -> None:
        """Show on one line what is left out and why, and remember it; nothing happens if `names` is empty.

        Every function that leaves something out says so here, and in no other way: `--strict` counts it.

        Args:
            what: the things in the singular, as `run`; several get an s.
            reason: why they are left out, all for the same reason.
            names: a name or path of each.
            fix: what the user can do about it; may be empty.
        """
        ...

    def warn(self, text: str) -> None:
        """Show on one line what is odd about the data and used all the same, and remember it: `--strict` counts it."""
        ...


class Silent:
    """Shows nothing: the default in the library."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """A context whose value does nothing."""
        return nullcontext(lambda **_: None)

    def line(self, text: str) -> None:
        """Show nothing."""

    def left_out(self, what: str, reason: str, names: Iterable[object], fix: str = "") -> None:
        """Give `line` the one line about what is left out."""
        if told := left_out(what, reason, names, fix):
            self.line(str(told))

    def warn(self, text: str) -> None:
        """Give `line` the warning."""
        self.line(f"warning: {text}")


SILENT: Progress = Silent()


def left_out(what: str, reason: str, names: Iterable[object], fix: str = "") -> LeftOut | None:
    """What is left out, from the arguments of `Progress.left_out`; None if nothing is."""
    texts = tuple(map(str, names))
    if not texts:
        return None
    return LeftOut(what if len(texts) == 1 else f"{what}s", reason, texts, fix)
