"""How the commands write to a terminal, a pipe or a file, of any width and encoding.

Every text that a user's files may be named in goes through `shown`: a terminal shows control characters and never obeys
them, and neither emoji codes such as `:100:` nor markup in square brackets are interpreted.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator

from rich import box
from rich.box import Box
from rich.console import Console

from fundus_seg.errors import FundusSegError, one_line, printable

_UNBOUNDED = 10_000
"""Columns, more than any table has."""
_RULED = Box(str(box.SIMPLE_HEAD).replace("─", "-"), ascii=True)
"""As `box.SIMPLE_HEAD`, and with the same widths, for streams that have no characters for lines."""
_PLAIN = {"±": "+/-", "−": "-", "–": "-", "—": "-", "…": "...", "²": "2", "µ": "u", "×": "x", "→": "->", "≥": ">="}
"""Stand-ins for characters of our own texts that a stream cannot encode."""
_ERRORS = "fundus-seg"


def console(*, stderr: bool = False, least: int = 0) -> Console:
    """A console that interprets nothing in the texts it prints.

    It is as wide as the terminal or $COLUMNS; without either, in a pipe or a file, as wide as any table needs.

    Args:
        stderr: whether it writes to standard error.
        least: columns that it has at least, however narrow the terminal is.
    """
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ and not stderr:
        made.width = _UNBOUNDED
    made.width = max(made.width, least)
    return made


def rules(where: Console) -> Box:
    """The rules of a table, which the console's encoding has characters for."""
    return _RULED if where.options.ascii_only else box.SIMPLE_HEAD


def shown(text: object, *, keep: str = "") -> str:
    """The text as standard output can show it: control characters escaped, and in the stream's encoding.

    Args:
        text: what is to be shown.
        keep: control characters that are meant, as the line ends of a text of several lines.
    """
    safe = printable(text, keep=keep)
    encoding = getattr(sys.stdout, "encoding", None) or "utf8"
    return safe.encode(encoding, _ERRORS).decode(encoding)


def print_text(text: object) -> None:
    """Print a text for people, of one or several lines."""
    print(shown(text, keep="\n\t"))


def print_data(text: object) -> None:
    """Print a path or a document for programs: to a pipe or a file as it is, to a terminal as `print_text` does."""
    if sys.stdout.isatty():
        print_text(text)
    else:
        print(text)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM stops the work as Ctrl-C does, with the exit code 143."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Within, what is printed fits the streams, and errors become one line and an exit code.

    - $COLUMNS that is no number above 0 says nothing about the width, and is forgotten.
    - Characters that a stream cannot encode are replaced, and bytes of file names reach a pipe as they are.
    - A reader that has gone away, as `head` does, ends the command quietly; a full disk behind standard output is
      an error, as is anything else that the system refuses and no other code has explained.
    """
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isascii() and columns.isdigit() and int(columns) > 0):
        os.environ.pop("COLUMNS", None)
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()  # None: the caller closed it
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_ERRORS)
    try:
        with _guarded_output():
            yield
    except FundusSegError as error:
        _end(f"error: {printable(error, keep=chr(10))}", error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _end(f"error: {printable(error.filename or 'the system')}: {error.strerror or one_line(error)}", 1)


class _Output(io.TextIOWrapper):
    """Standard output whose errors say that they are its own."""

    def write(self, text: str) -> int:
        with _told():
            return super().write(text)

    def flush(self) -> None:
        with _told():
            super().flush()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise


@contextlib.contextmanager
def _guarded_output() -> Iterator[None]:
    """Within, standard output is an `_Output`; what it could not write goes nowhere when Python ends."""
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper):
        yield
        return
    before.flush()
    sys.stdout = output = _Output(
        before.buffer, encoding=before.encoding, errors=_ERRORS, line_buffering=before.line_buffering
    )
    try:
        yield
        output.flush()
    except BaseException as error:
        try:
            output.flush()
        except OSError as failed:
            with contextlib.suppress(OSError, io.UnsupportedOperation):
                os.dup2(os.open(os.devnull, os.O_WRONLY), before.fileno())
            if isinstance(error, SystemExit) and not error.code:
                raise failed from error
        raise
    finally:
        sys.stdout = before
        with contextlib.suppress(OSError):
            output.detach()


def _end(line: str, code: int) -> None:
    with contextlib.suppress(OSError):  # standard error may be gone too
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of encoders: stand-ins for our own characters, raw bytes of file names, escapes for the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    if all("\udc80" <= each <= "\udcff" for each in characters):
        return bytes(ord(each) - 0xDC00 for each in characters), error.end
    encoded = "".join(_PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in characters)
    return encoded, error.end


codecs.register_error(_ERRORS, _replace)
