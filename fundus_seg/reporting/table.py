"""A report: one tidy data frame, and the layout in which it is printed. Its forms: markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from fundus_seg.errors import UsageError, printable, unknown_name
from fundus_seg.runs.atomic import frame_csv

_LATEX = str.maketrans(
    {character: "\\" + character for character in "%_&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$"}
)
"""Characters that TeX would read as a command, or print as another one."""


@dataclass(frozen=True)
class Table:
    """The layout of a report: texts only.

    Attributes:
        title: what the numbers are of.
        labels: names of the columns that say what a row is of.
        columns: names of the columns of values, to the right of the labels.
        rows: for each row a text for each label, then a text for each column.
        notes: further lines that a reader must know.
        bold: row and column number, counted from 0, of the values that stand out.
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
        """Whether row number `row` is the last one with its first label, where rows share their first labels."""
        firsts = [each[0] for each in self.rows]
        last = row + 1 == len(firsts) or firsts[row + 1] != firsts[row]
        return last and len(self.labels) > 1 and len(set(firsts)) < len(firsts)


@dataclass(frozen=True, eq=False)
class Report:
    """What a command prints.

    Attributes:
        frame: the data, tidy: numbers as numbers, NaN where there is none, and a row for each thing that was measured.
        layout: the same as texts.
    """

    frame: pd.DataFrame
    layout: Table

    def __str__(self) -> str:
        """The layout as a table of Markdown."""
        return render(self, "markdown")

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return str(self)

    def with_notes(self, notes: Iterable[object]) -> Report:
        """The report with further notes, as of what it leaves out (`Progress.left_out`)."""
        return replace(self, layout=replace(self.layout, notes=(*self.layout.notes, *map(str, notes))))


def render(report: Report, form: str) -> str:
    """The report as text.

    Args:
        report: `csv` and `json` write its frame, with the layout's title and notes; the other forms its layout.
        form: `markdown`, `latex` (booktabs), `csv` or `json`.

    Raises:
        UsageError: another form.
    """
    writers: dict[str, Callable[[Report], str]] = {
        "markdown": lambda report: _markdown(report.layout),
        "latex": lambda report: _latex(report.layout),
        "csv": _csv,
        "json": _json,
    }
    if form == "rich":
        raise UsageError(
            f"format rich is for terminals, printed by the commands alone; take one of {', '.join(writers)}"
        )
    if form not in writers:
        raise UsageError(unknown_name("format", form, writers))
    return writers[form](report)


def _csv(report: Report) -> str:
    """The frame below its title and notes, which are comments that begin with #.

    `pandas.read_csv(path, comment="#", keep_default_na=False, na_values=["NA"])` reads it: an empty recipe is a text.
    """
    comments = "".join(f"# {printable(line)}\n" for line in (report.layout.title, *report.layout.notes))
    return comments + frame_csv(report.frame, na_rep="NA", float_format="%.6g")


def _json(report: Report) -> str:
    """An object with `title`, `notes` and `rows`; null stands where there is no number."""
    content = {
        "title": report.layout.title,
        "notes": report.layout.notes,
        "rows": json.loads(report.frame.to_json(orient="records", double_precision=15)),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _safe(table: Table, safe: Callable[[str], str]) -> Table:
    """The table with every text passed through `safe`."""
    return replace(
        table,
        title=safe(table.title),
        labels=tuple(map(safe, table.labels)),
        columns=tuple(map(safe, table.columns)),
        rows=tuple(tuple(map(safe, row)) for row in table.rows),
        notes=tuple(map(safe, table.notes)),
    )


def _markdown(table: Table) -> str:
    """A table of GitHub's Markdown; a bar in a text would end its cell, and is escaped."""
    table = _safe(table, lambda text: printable(text).replace("|", r"\|"))
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
    """The rows with each text passed through `plain`, and those that are bold through `emphasise` too."""
    return [
        [
            emphasise(plain(text)) if table.is_bold(number, position) else plain(text)
            for position, text in enumerate(row)
        ]
        for number, row in enumerate(table.rows)
    ]


def _latex(table: Table) -> str:
    r"""A float for `\input`; its document loads booktabs. Notes stand below at the page's width, not in a cell."""
    table = _safe(table, printable)
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


def mean_sd_text(mean: float, sd: float = math.nan, digits: int = 2) -> str:
    """`87.31 ± 0.52`; the mean alone where the deviation is NaN; `missing` where the mean is NaN."""
    if math.isnan(mean):
        return "missing"
    return f"{mean:.{digits}f}" if math.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def mean_interval_text(mean: float, low: float, high: float, digits: int = 2) -> str:
    """`87.31 [85.02, 89.20]`, with equal digits, so that no mean seems to lie outside; the mean alone without them."""
    each = [f"{value:.{digits}f}" for value in (mean, low, high)]
    return each[0] if math.isnan(low) else f"{each[0]} [{each[1]}, {each[2]}]"


def difference_text(difference: float, low: float = math.nan, high: float = math.nan) -> str:
    """`+1.21 [+0.40, +2.02]`; without an interval where that is NaN; `missing` where the difference is NaN."""
    if math.isnan(difference):
        return "missing"
    return f"{difference:+.2f}" if math.isnan(low) else f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def p_text(p: float) -> str:
    """`0.012`, `< 0.001`, or `-` for NaN."""
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
