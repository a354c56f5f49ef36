"""A table of texts, and its forms on paper: markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fundus_seg.errors import UsageError, unknown_name

_LATEX = str.maketrans(
    {character: "\\" + character for character in "%_&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$"}
)
"""What TeX would read as a command, or print as another character."""


@dataclass(frozen=True)
class Table:
    """What is printed.

    Attributes:
        title: what the numbers are of.
        labels: names of the columns that say what a row is of.
        columns: names of the columns of values, to the right of the labels.
        rows: a text for each label, then one for each column.
        notes: what a reader must know besides, a line each.
        bold: row and column number of the values that stand out, counted from 0; plain in CSV.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    bold: frozenset[tuple[int, int]] = frozenset()

    def is_bold(self, row: int, position: int) -> bool:
        """Whether the text at `position` of row number `row`, labels counted, stands out."""
        return (row, position - len(self.labels)) in self.bold

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
    lines += [_pipes(row) for row in _emphasised(table, "**{}**".format)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _emphasised(table: Table, emphasise: Callable[[str], str], plain: Callable[[str], str] = str) -> list[list[str]]:
    """The rows, each text through `plain`, and through `emphasise` besides where it is bold."""
    return [
        [
            emphasise(plain(text)) if table.is_bold(number, position) else plain(text)
            for position, text in enumerate(row)
        ]
        for number, row in enumerate(table.rows)
    ]


def _latex(table: Table) -> str:
    r"""A float for `\input`; its document loads booktabs. Notes stand below at the page's width, not in a cell."""
    alignment = "l" * len(table.labels) + "r" * len(table.columns)
    header = map(_escaped, (*table.labels, *table.columns))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _ampersands(header), r"\midrule"]
    for number, row in enumerate(_emphasised(table, r"\textbf{{{}}}".format, _escaped)):
        lines.append(_ampersands(row))
        if table.ends_group(number) and number + 1 < len(table.rows):
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_escaped(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _ampersands(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return text.translate(_LATEX)


def _csv(table: Table) -> str:
    """Title and notes are comments that begin with #: `pandas.read_csv(..., comment="#")`."""
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in (table.title, *table.notes))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*table.labels, *table.columns))
    writer.writerows(table.rows)
    return text.getvalue()
