"""`fundus-seg config`."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table as RichTable
from rich.text import Text

from fundus_seg_cli.console import console, print_data, rules, shown
from fundus_seg_cli.options import Overrides

if TYPE_CHECKING:
    from fundus_seg.config.describe import Difference, Setting

_NARROWEST = 100
"""Columns that the table needs at least."""

Form = Literal["rich", "markdown", "csv", "json"]


def config(
    source: Annotated[
        str, typer.Argument(metavar="PRESET|FILE|RUN", help="Preset, YAML file of settings, or a run's folder.")
    ] = "paper",
    overrides: Overrides = None,
    diff: Annotated[
        str | None, typer.Option(help="Print only what differs from this preset, YAML file or run.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="How the settings are printed; markdown is the page docs/settings.md.")
    ] = "rich",
) -> None:
    """Print every setting: its value, where the value comes from, what it may be, and what it is."""
    from fundus_seg.config.describe import compare, describe, markdown_page

    settings = describe(source, overrides=overrides or [])
    if diff:
        _print(compare(settings, describe(diff)), form)
    elif form == "markdown":
        print_data(markdown_page(settings))
    else:
        _print(settings, form)


def _print(rows: Sequence[Setting] | Sequence[Difference], form: Form) -> None:
    from fundus_seg.config.describe import as_yaml, markdown_table

    if not rows:
        print("no setting differs")
    elif form == "json":
        print_data(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    elif form == "markdown":
        print_data(markdown_table(rows))
    else:
        names = [field.name for field in dataclasses.fields(rows[0])]
        texts = [[as_yaml(getattr(row, name)) for name in names] for row in rows]
        if form == "csv":
            csv.writer(sys.stdout, lineterminator="\n").writerows([names, *texts])
        else:
            _print_rich(names, texts)


def _print_rich(names: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    where = console(least=_NARROWEST)
    table = RichTable(box=rules(where), padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=name == "setting")
    for row in texts:
        table.add_row(*(Text(shown(text, keep="\n")) for text in row))
    where.print(table)
