"""Errors that a user can act on: one line that names the file or the setting, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class FundusSegError(Exception):
    """Base of every error raised on purpose; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(FundusSegError):
    """A wrong argument: unknown operator, domain, option or setting."""

    exit_code = 2


class DataError(FundusSegError):
    """Photographs, masks or their folders are not what training or scoring needs."""


class ConfigError(FundusSegError):
    """A configuration file holds something that is not a valid setting."""


class RunError(FundusSegError):
    """A run folder cannot be used as asked: other settings, not trained, incomplete."""


class CheckpointError(FundusSegError):
    """A checkpoint cannot be read, or does not fit the network it names."""


class ProtocolError(FundusSegError):
    """Scores that must not stand in one table."""


class Problem(NamedTuple):
    """What is wrong with a file or folder, and the fix: one of many, gathered before any is raised."""

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def unknown_name(kind: str, given: str, valid: Iterable[str]) -> str:
    """The text `unknown operator 'tvcnov': did you mean 'tvconv'? (valid: conv, depthwise, tvconv)`."""
    names = list(valid)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {kind} '{given}': {hint}(valid: {', '.join(names)})"


def listing(problems: Sequence[object], what: str, most: int = 20) -> str:
    """One problem as it is; several as a count and an indented line each, `most` at the most."""
    if len(problems) == 1:
        return str(problems[0])
    lines = [f"{len(problems)} {what}:", *(f"  {problem}" for problem in problems[:most])]
    if len(problems) > most:
        lines.append(f"  ... and {len(problems) - most} more")
    return "\n".join(lines)
