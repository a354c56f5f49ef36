"""`fundus-seg`: the entry point, and the only place where an error becomes a line and an exit code."""

from __future__ import annotations

import gc
import shutil
import warnings
from typing import Annotated, get_args

import typer
from typer import rich_utils

from fundus_seg.builtins import PictureFormat
from fundus_seg.errors import one_line
from fundus_seg.reading import file_being_read
from fundus_seg_cli import (
    affinity,
    audit,
    benchmark,
    calibrate,
    compare,
    config,
    data,
    evaluate,
    export,
    predict,
    profile,
    report,
    score,
    train,
)
from fundus_seg_cli.console import shown, standard_streams
from fundus_seg_cli.options import TRUST_MEASURED, Alone, command_class, names_operator, paragraphs

app = typer.Typer(
    help="Segment optic disc and optic cup on cameras and hospitals that training has never seen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_LEAST_HELP = 80
"""Columns of --help, however narrow the terminal is: in fewer, names of options would be cut off."""
_COMMANDS = (
    train.train,
    evaluate.evaluate,
    calibrate.calibrate,
    benchmark.benchmark,
    compare.compare,
    report.report,
    affinity.affinity,
    predict.predict,
    export.export,
    score.score,
    config.config,
    audit.audit,
    profile.profile,
)
_RENAMED = {
    "evaluate": {"--op": "--trust", "--selection": "--all-selections"},
    "predict": {"--op": "--trust", "--overlay-format": "--overlay"},
    "profile": {"--op": "--ops"},
}
"""Former spellings of options with the new ones, for each command."""
_FORMATS = get_args(PictureFormat)
_ALONE = {
    "predict": {"--overlay": Alone(_FORMATS[0], _FORMATS.__contains__)},
    "evaluate": {"--trust": Alone(TRUST_MEASURED, names_operator)},
    "report": {"--trust": Alone(TRUST_MEASURED, names_operator)},
}
"""Options that may stand without a value, for each command."""
for _command in _COMMANDS:
    _class = command_class(_RENAMED.get(_command.__name__), _ALONE.get(_command.__name__))
    app.command(_command.__name__, help=paragraphs(_command.__doc__), cls=_class)(_command)
app.add_typer(data.app, name="data")


def _print_version(asked: bool) -> None:
    if asked:
        from fundus_seg import __version__

        print(f"fundus-seg {__version__}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _warning_line(message: Warning | str) -> str:
    """A warning as one line; one that a decoder gives names the file that is read."""
    path = file_being_read()
    place = f"{path}: " if path else ""
    return f"warning: {shown(f'{place}{one_line(message)}')}\n"


def main() -> None:
    """Run the command line; print warnings and errors as one line each, and exit with the error's code."""
    gc.set_threshold(50_000)  # with 700, looking for garbage takes a sixth of the time of all imports
    warnings.formatwarning = lambda message, *_, **__: _warning_line(message)
    warnings.filterwarnings("always", module=r"PIL\.")  # not only of the first file
    with standard_streams():
        if shutil.get_terminal_size().columns < _LEAST_HELP:
            rich_utils.MAX_WIDTH = _LEAST_HELP
        app(prog_name="fundus-seg")
