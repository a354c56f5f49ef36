"""`fundus-seg`: the entry point, and the only place where an error becomes a line and an exit code."""

from __future__ import annotations

import sys
import warnings

import typer

from fundus_seg.errors import FundusSegError, one_line
from fundus_seg.reading import file_being_read
from fundus_seg_cli import audit, benchmark, compare, config, data, evaluate, predict, profile, score, train
from fundus_seg_cli.options import paragraphs, refusing

app = typer.Typer(
    help="Segment optic disc and optic cup on cameras and hospitals that training has never seen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_COMMANDS = (
    train.train,
    evaluate.evaluate,
    benchmark.benchmark,
    compare.compare,
    predict.predict,
    score.score,
    config.config,
    audit.audit,
    profile.profile,
)
_RENAMED = {"evaluate": {"--op": "--trust", "--selection": "--all-selections"}, "predict": {"--op": "--trust"}}
"""By command, the former spellings of options and their new ones."""
for _command in _COMMANDS:
    _class = refusing(_RENAMED.get(_command.__name__, {}))
    app.command(_command.__name__, help=paragraphs(_command.__doc__), cls=_class)(_command)
app.add_typer(data.app, name="data")


def _warning_line(message: Warning | str) -> str:
    """A warning as one line; one that a decoder gives names the file that is read."""
    path = file_being_read()
    place = f"{path}: " if path else ""
    return f"warning: {place}{one_line(message)}\n"


def main() -> None:
    """Run the command line; print warnings and a FundusSegError as one line each, and exit with the error's code."""
    warnings.formatwarning = lambda message, *_, **__: _warning_line(message)
    warnings.filterwarnings("always", module=r"PIL\.")  # not only of the first file
    try:
        app(prog_name="fundus-seg")
    except FundusSegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
