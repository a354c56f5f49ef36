"""`fundus-seg`: the entry point, and the only place where an error becomes a line and an exit code."""

from __future__ import annotations

import sys

import typer

from fundus_seg.errors import FundusSegError
from fundus_seg_cli import compare, data, evaluate, predict, profile, train

app = typer.Typer(
    help="Segment optic disc and optic cup on cameras and hospitals that training has never seen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("profile")(profile.profile)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; print a FundusSegError as one line and exit with its code."""
    try:
        app()
    except FundusSegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
