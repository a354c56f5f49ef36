"""A table of texts, and its forms on paper: markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from fundus_seg.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Table:
    """What is printed.

    Attributes:
        title: what the numbers are of.
        labels: names of the columns that say what a row is of.
        columns: names of the columns of values, to the right of the labels.
        rows: a text for each label, then one for each column.
        notes: what a reader must know besides, a line each.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def ends_group(self, row: int) -> bool:
        """Whether row number `row` is the last one with its first label, of several labels."""
        last = row + 1 == len(self.rows) or self.rows[row + 1][0] != self.rows[row][0]
        return last and len(self.labels) > 1


def render(table: Table, form: str) -> str:
    """The table as `markdown`, `latex` (booktabs) or `csv` text.

    Raises:
        UsageError: another form.
    """
    writers = {"markdown": _markdown, "latex": _latex, "csv": _csv}
    if form not in writers:
        raise UsageError(unknown_name("format", form, [*writers, "rich"]))
    return writers[form](table)


def _markdown(table: Table) -> str:
    lines = [
        f"**{table.title}**",
        "",
        _pipes((*table.labels, *table.columns)),
        "|" + "---|" * len(table.labels) + "---:|" * len(table.columns),
    ]
    lines += [_pipes(row) for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _latex(table: Table) -> str:
    alignment = "l" * len(table.labels) + "r" * len(table.columns)
    width = len(alignment)
    lines = [rf"\begin{{tabular}}{{{alignment}}}", _across(table.title, width), r"\toprule"]
    lines += [_ampersands((*table.labels, *table.columns)), r"\midrule"]
    for number, row in enumerate(table.rows):
        lines.append(_ampersands(row))
        if table.ends_group(number) and number + 1 < len(table.rows):
            lines.append(r"\midrule")
    lines.append(r"\bottomrule")
    return "\n".join([*lines, *(_across(note, width) for note in table.notes), r"\end{tabular}"]) + "\n"


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _across(text: str, width: int) -> str:
    return rf"\multicolumn{{{width}}}{{l}}{{{_escaped(text)}}} \\"


def _escaped(text: str) -> str:
    for character in "%_&#":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$")


def _csv(table: Table) -> str:
    """Title and notes are comments that begin with #: `pandas.read_csv(..., comment="#")`."""
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in (table.title, *table.notes))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*table.labels, *table.columns))
    writer.writerows(table.rows)
    return text.getvalue()
