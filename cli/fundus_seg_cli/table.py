"""Reports on a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from fundus_seg.data.check import RootCheck, Spread
    from fundus_seg.reporting.table import Report, Table
    from fundus_seg_cli.options import TableFormat


_UNBOUNDED = 10_000
"""Columns, more than any table has."""


def print_report(report: Report, form: TableFormat) -> None:
    """Print the report to standard output: its layout, or as csv and json its data."""
    if form == "rich":
        _print_rich(report.layout)
    else:
        from fundus_seg.reporting.table import render

        print(render(report, form))


def _print_rich(table: Table) -> None:
    """With a rule between groups of rows, each label named once."""
    narrow: dict[str, Any] = {"collapse_padding": True, "pad_edge": False, "show_edge": False}
    shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, **narrow)
    for label in table.labels:
        shown.add_column(label, no_wrap=True)
    for column in table.columns:
        shown.add_column(column.replace(" ", "\n"), justify="right")  # no wider than its longest word
    before: tuple[str, ...] = ()
    for number, row in enumerate(table.rows):
        groups = ["" if row[:end] == before[:end] else row[end - 1] for end in range(1, len(table.labels))]
        texts = [
            Text(text, style="bold" if table.is_bold(number, position) else "")
            for position, text in enumerate((*groups, *row[len(groups) :]))
        ]
        shown.add_row(*texts, end_section=table.ends_group(number))
        before = row
    console = _console()
    console.print(shown)
    for note in table.notes:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _console() -> Console:
    """As wide as the terminal or $COLUMNS; without either, in a pipe or a file, as wide as a table needs."""
    console = Console(markup=False)  # [ms] is a unit, not a style
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBOUNDED
    return console


def print_check(found: RootCheck) -> None:
    """Print a row for each split, then a line for each problem, errors first, then how many there are.

    The columns: commonest frame, masks' greys from the most to the least common, cases, empty structures, cups that
    touch the background, discs cut by the frame, then mean and SD of the vertical ratios.
    """
    shown = RichTable(title=found.root, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("split", "frame", "greys"):
        shown.add_column(name, no_wrap=True)
    for name in ("cases", "empty", "touch", "cut", "disc/frame", "cup/disc"):
        shown.add_column(name, justify="right", no_wrap=True)
    for split in found.splits:
        shown.add_row(
            f"{split.domain} {split.split}",
            _commonest(split.frames, 1),
            _commonest(split.greys, 3),
            *map(str, (split.cases, split.empty_disc + split.empty_cup, split.cup_touches_background, split.disc_cut)),
            _mean_sd(split.disc_to_frame),
            _mean_sd(split.cup_to_disc),
        )
    console = _console()
    console.print(shown)
    errors, warnings = found.problems("error"), found.problems("warning")
    for severity, problems in (("error", errors), ("warning", warnings)):
        for problem in problems:
            console.print(f"{severity}: {problem}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(errors)} errors, {len(warnings)} warnings", highlight=False)


def _commonest(counts: Mapping[str, int], most: int) -> str:
    names = sorted(counts, key=lambda name: -counts[name])
    return " ".join(names[:most]) + (f" +{len(names) - most}" if len(names) > most else "")


def _mean_sd(spread: Spread) -> str:
    return "±".join(f"{value:.2f}" for value in (spread.mean, spread.sd) if value is not None)
