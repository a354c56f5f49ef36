"""Errors that a user can act on: one line that names the file or the setting, and the fix."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path


class FundusSegError(Exception):
    """Base of every error raised on purpose; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(FundusSegError):
    """A wrong argument: unknown operator, domain, option or setting."""

    exit_code = 2


class DataError(FundusSegError):
    """Photographs, masks or their folders are not what training or scoring needs.

    Attributes:
        problems: a line each; several where `Problems` raised the error.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class Problems:
    """What is wrong with the data, gathered from several steps to be told at once."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.lines = list(lines)

    @contextlib.contextmanager
    def gather(self) -> Iterator[None]:
        """Keep the problems of a DataError raised within, and go on after it."""
        try:
            yield
        except DataError as error:
            self.lines += error.problems

    def refuse(self, what: str) -> None:
        """Raise a DataError that lists every problem once, if there is any; `what` heads several, in the plural."""
        if self.lines:
            each = tuple(dict.fromkeys(self.lines))
            raise DataError(listing(each, what), each)


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Within it the message of a DataError gets the path of the file that it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


class ConfigError(FundusSegError):
    """A configuration file holds something that is not a valid setting."""


class RunError(FundusSegError):
    """A run folder cannot be used as asked: other settings, not trained, incomplete."""


class BusyError(RunError):
    """Another process is writing into the folder."""


class LeaseLostError(RunError):
    """Another process has taken the folder over from this one, which must not write there any more."""


class CheckpointError(FundusSegError):
    """A checkpoint cannot be read, or does not fit the network it names."""


class ProtocolError(FundusSegError):
    """Scores that must not stand in one table."""


def unknown_name(kind: str, given: str, valid: Iterable[str]) -> str:
    """The text `unknown operator 'tvcnov': did you mean 'tvconv'? (valid: conv, depthwise, tvconv)`."""
    names = list(valid)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {kind} '{given}': {hint}(valid: {', '.join(names)})"


def one_line(error: object) -> str:
    """The text of an error, or of anything else, on one line."""
    return " ".join(str(error).split())


def listing(problems: Sequence[str], what: str) -> str:
    """One problem as it is; several as a count and an indented line each."""
    if len(problems) == 1:
        return problems[0]
    return "\n".join([f"{len(problems)} {what}:", *(f"  {problem}" for problem in problems)])
