"""Reports on a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fundus_seg.errors import counted
from fundus_seg_cli.console import console, print_data, print_text, rules, shown

if TYPE_CHECKING:
    from fundus_seg.data.check import RootCheck, Spread
    from fundus_seg.progress import LeftOut
    from fundus_seg.reporting.table import Report, Table
    from fundus_seg_cli.options import TableFormat

_LONGEST_WORD = 24
"""Columns of a word that is never broken, as no number is; longer ones are names, and broken where they must be."""
_PADDING = 1
_GAP = _PADDING + 1
"""Columns between two columns of a table: the padding, and the blank that stands for a rule."""


def print_report(report: Report, form: TableFormat, left_out: Iterable[LeftOut] = ()) -> None:
    """Print the report to standard output: its layout, or as csv and json its data.

    Args:
        report: what is printed.
        form: how it is printed.
        left_out: what the command left out; the notes of the report say it too.
    """
    report = report.with_notes(left_out)
    if form == "rich":
        _print_rich(report.layout)
    else:
        from fundus_seg.reporting.table import render

        (print_data if form in ("csv", "json") else print_text)(render(report, form))


@dataclass(frozen=True)
class _Column:
    """A column as it is printed; one of values stands to the right."""

    heading: str
    texts: Sequence[str]
    right: bool

    @property
    def natural(self) -> int:
        """Its width if no text is broken; a heading of values is broken between words."""
        heading = self._words if self.right else [self.heading]
        return max(map(cell_len, (*heading, *self.texts)), default=0)

    @property
    def least(self) -> int:
        """Its width if texts are broken between words, and headings and long names anywhere."""
        words = [cell_len(word) for text in self.texts for word in text.split()]
        heading = min(max(map(cell_len, self._words), default=0), _LONGEST_WORD // 2)
        return max(min(max(words, default=0), _LONGEST_WORD), heading)

    @property
    def _words(self) -> list[str]:
        """The words of the heading; what stands in brackets is one word."""
        return re.findall(r"(?:\[[^\[\]]*\]|\([^()]*\)|\S)+", self.heading)

    def heading_in(self, width: int) -> str:
        """The heading in lines of a width: broken between words, in long names behind dashes, or else anywhere."""
        lines = [""]
        for word in self._words:
            pieces = [word] if cell_len(word) <= width else re.findall(r"[^-]*-|[^-]+", word)
            for number, piece in enumerate(pieces):
                joint = " " if number == 0 and lines[-1] else ""
                if cell_len(lines[-1] + joint + piece) <= width:
                    lines[-1] += joint + piece
                else:
                    lines.append(piece)
        return "\n".join(line for line in lines if line)


def _print_rich(table: Table) -> None:
    """Print a table; where its rows are too wide, their values stand below one another."""
    rows = [[shown(text) for text in row] for row in table.rows]
    labels = len(table.labels)
    texts = list(zip(*rows, strict=True)) or [()] * (labels + len(table.columns))
    columns = [
        _Column(shown(name), texts[number], number >= labels)
        for number, name in enumerate((*table.labels, *table.columns))
    ]
    where = console()
    _print_line(where, table.title, style="italic")
    widths = _widths(columns, where.width)
    if widths is None:
        _print_stacked(where, table, rows)
    else:
        _print_grid(where, table, rows, columns, widths)
    for note in table.notes:
        _print_line(where, note, style="dim")


def _print_line(where: Console, text: str, *, style: str = "") -> None:
    """Print a text of any length, which the terminal may break."""
    where.print(Text(shown(text), style=style), soft_wrap=True)


def _widths(columns: Sequence[_Column], width: int) -> list[int] | None:
    """The columns' widths, the widest made narrower until all fit; None if they cannot."""
    widths = [column.natural for column in columns]
    least = [min(column.least, column.natural) for column in columns]
    room = width - _GAP * (len(columns) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda number: (widths[number] > least[number], widths[number]))
        widths[widest] -= 1
    return widths


def _print_grid(
    where: Console, table: Table, rows: Sequence[Sequence[str]], columns: Sequence[_Column], widths: Sequence[int]
) -> None:
    grid = RichTable(
        box=rules(where), collapse_padding=True, padding=(0, _PADDING, 0, 0), pad_edge=False, show_edge=False
    )
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["right", "left"] = "right" if column.right else "left"
        grid.add_column(Text(column.heading_in(width)), justify=justify, width=width, overflow="fold")
    before: Sequence[str] = ()
    for number, row in enumerate(rows):
        groups = ["" if row[:end] == before[:end] else row[end - 1] for end in range(1, len(table.labels))]
        cells = [
            Text(text, style="bold" if table.is_bold(number, position) else "")
            for position, text in enumerate((*groups, *row[len(groups) :]))
        ]
        grid.add_row(*cells, end_section=table.ends_group(number))
        before = row
    where.print(grid)


def _print_stacked(where: Console, table: Table, rows: Sequence[Sequence[str]]) -> None:
    """A line for the labels of each row, then a line for each of its values; no word is broken."""
    labels = len(table.labels)
    for number, row in enumerate(rows):
        _print_wrapped(where, ", ".join(row[:labels]), indent=0)
        for position, (name, text) in enumerate(zip(table.columns, row[labels:], strict=True), labels):
            style = "bold" if table.is_bold(number, position) else ""
            _print_wrapped(where, f"{shown(name)}: {text}", indent=2, style=style)


def _print_wrapped(where: Console, text: str, *, indent: int, style: str = "") -> None:
    lines = textwrap.wrap(
        text,
        max(where.width, indent + 1),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        where.print(Text(line, style=style), soft_wrap=True)


def print_check(found: RootCheck) -> None:
    """Print a row for each split, then a line for each problem, errors first, then how many there are.

    The columns: commonest frame, masks' greys from the most to the least common, then numbers of cases: all, those
    without a disc, those without a cup, those whose cup touches the background, and those whose disc the frame cuts;
    and those whose cup is not annotated, if there are any; then mean and SD of the vertical ratios.
    """
    from fundus_seg.reporting.table import Table

    partial = any(split.cup_not_annotated for split in found.splits)
    rows = tuple(
        (
            f"{split.domain} {split.split}",
            _commonest(split.frames, 1),
            _commonest(split.greys, 3),
            *map(str, (split.cases, split.empty_disc, split.empty_cup, split.cup_touches_background, split.disc_cut)),
            *([str(split.cup_not_annotated)] if partial else []),
            _mean_sd(split.disc_to_frame),
            _mean_sd(split.cup_to_disc),
        )
        for split in found.splits
    )
    further = ("cup not annotated",) if partial else ()
    values = ("cases", "no disc", "no cup", "cup touches", "disc cut", *further, "disc/frame", "cup/disc")
    _print_rich(Table(found.root, ("split", "frame", "greys"), values, rows, ()))
    errors, warnings = found.problems("error"), found.problems("warning")
    for severity, problems in (("error", errors), ("warning", warnings)):
        for problem in problems:
            print_text(f"{severity}: {problem}")
    print_text(f"{counted(len(errors), 'error')}, {counted(len(warnings), 'warning')}")


def _commonest(counts: Mapping[str, int], most: int) -> str:
    names = sorted(counts, key=lambda name: -counts[name])
    return " ".join(names[:most]) + (f" +{len(names) - most}" if len(names) > most else "")


def _mean_sd(spread: Spread) -> str:
    return "±".join(f"{value:.2f}" for value in (spread.mean, spread.sd) if value is not None)
