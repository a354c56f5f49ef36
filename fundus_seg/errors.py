"""Errors that a user can act on: one line that names the file or the setting, and the fix."""

from __future__ import annotations

import contextlib
import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


class FundusSegError(Exception):
    """Base of every error raised on purpose; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(FundusSegError):
    """A wrong argument: unknown operator, domain, option or setting."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the data, its fix included.

    `str(problem)` is the line to print: the path (and the line number in it), a colon and the text.

    Attributes:
        text: what is wrong and how to mend it, without the path.
        path: the file, folder or pattern of files that it is about, where there is one.
        line: the line of a text file, counted from 1, where there is one.
    """

    text: str
    path: Path | str | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.path is None:
            return self.text
        path = printable(self.path)
        place = f"{path}:{self.line}" if self.line else path
        return f"{place}: {self.text}"


class DataError(FundusSegError):
    """Photographs, masks or their folders are not what training or scoring needs.

    Args:
        text, path, line: as in `Problem`.
        problems: the problems that `text` lists, if there are several.

    Attributes:
        problems: each problem on its own; one, unless `Problems.refuse` raised the error.
    """

    def __init__(
        self,
        text: str,
        path: Path | str | None = None,
        line: int | None = None,
        *,
        problems: Sequence[Problem] = (),
    ) -> None:
        problem = Problem(text, path, line)
        super().__init__(str(problem))
        self.problems = tuple(problems) or (problem,)


class NoReadersError(DataError):
    """A domain does not keep its readers apart."""


class SharedFaultError(DataError):
    """A fault that many files may share, since they were exported alike: these get one line together."""


class Problems:
    """Collects what is wrong with the data over several steps, so that the user sees all of it at once."""

    def __init__(self, found: Iterable[Problem] = ()) -> None:
        self.found = list(found)

    def add(self, text: str, path: Path | str | None = None) -> None:
        """Add one problem."""
        self.found.append(Problem(text, path))

    @contextlib.contextmanager
    def gather(self) -> Iterator[None]:
        """Add the problems of a DataError that the block raises, and go on after the block."""
        try:
            yield
        except DataError as error:
            self.found += error.problems

    def refuse(self, what: str) -> None:
        """Raise a DataError that lists each problem once, if there is any.

        Args:
            what: the heading of several problems, in the plural: "files cannot be used".
        """
        if self.found:
            each = tuple(dict.fromkeys(self.found))
            raise DataError(listing(each, what), problems=each)


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Give a DataError that the block raises the path of the file that the block works on."""
    try:
        yield
    except DataError as error:
        raise type(error)(str(error), path) from error


class StrictError(FundusSegError):
    """Something was left out or is odd, and the caller asked that nothing be."""

    exit_code = 3


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


class UntrustedError(CheckpointError):
    """A checkpoint needs an operator from outside the package which the caller has not named.

    Attributes:
        operator: its name, `package.module:factory`.
    """

    def __init__(self, path: Path, operator: str) -> None:
        super().__init__(
            f"{path}: its operator {operator} is code, which no file may import by itself: "
            f"if you trust it, name it with --trust {operator}, or call fundus_seg.plugins.load('{operator}') first"
        )
        self.operator = operator


class ProtocolError(FundusSegError):
    """Scores that must not stand in one table."""


def unknown_name(kind: str, given: str, valid: Iterable[str]) -> str:
    """The text `unknown operator 'tvcnov': did you mean 'tvconv'? (valid: conv, depthwise, tvconv)`."""
    names = list(valid)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return f"unknown {kind} '{given}'{hint} (valid: {', '.join(names)})"


def counted(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: object, *, keep: str = "") -> str:
    r"""The text with each character escaped that a terminal would obey or could not show: ESC as `\x1b`.

    These are control characters, line ends, marks that reverse the direction of what follows, and bytes of file names
    that are not UTF-8.

    Args:
        text: what is to be shown; of anything else than a text, `str` of it.
        keep: characters that are left as they are, as the line ends of a text of several lines.
    """
    return "".join(
        _escaped(each) if each not in keep and (unicodedata.category(each) in _UNSHOWN or each in _REVERSING) else each
        for each in str(text)
    )


_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
_REVERSING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def one_line(error: object) -> str:
    """The text of an error, or of anything else, on one line."""
    return " ".join(str(error).split())


def listing(problems: Sequence[object], what: str) -> str:
    """One problem as it is; several as a line with their number and `what`, then an indented line for each."""
    if len(problems) == 1:
        return str(problems[0])
    return "\n".join([f"{len(problems)} {what}:", *(f"  {problem}" for problem in problems)])
