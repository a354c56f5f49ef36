"""`fundus-seg`: the entry point, and the only place where an error becomes a line and an exit code."""

from __future__ import annotations

import sys
import warnings

import typer

from fundus_seg.errors import FundusSegError
from fundus_seg_cli import audit, benchmark, compare, config, data, evaluate, predict, profile, score, train

app = typer.Typer(
    help="Segment optic disc and optic cup on cameras and hospitals that training has never seen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("benchmark")(benchmark.benchmark)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("score")(score.score)
app.command("config")(config.config)
app.command("audit")(audit.audit)
app.command("profile")(profile.profile)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; print warnings and a FundusSegError as one line each, and exit with the error's code."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        app()
    except FundusSegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
