"""What a section of the page is made of: paragraphs, lists, tables, figures, code and cases; templates draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from markupsafe import Markup

from fundus_seg.reporting.table import Report, Table

MOST_CHOICES = 40
"""A column of texts with more different ones gets no list to choose from."""


class LackingError(Exception):
    """Why a section has nothing to show, in the words of one line."""


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: the paragraph.
        copied: whether a button copies it.
    """

    kind: ClassVar[str] = "text"
    text: str
    copied: bool = False


@dataclass(frozen=True)
class Lines:
    """A list of lines."""

    kind: ClassVar[str] = "lines"
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Commands, each on a line of its own."""

    kind: ClassVar[str] = "code"
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        svg: the drawing, as elements of the page.
        said: what it shows, for those who do not see it.
        caption: what stands below it; empty for nothing.
    """

    kind: ClassVar[str] = "figure"
    svg: Markup
    said: str
    caption: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a grid.

    Attributes:
        heading: its name.
        number: whether its values are numbers, which stand to the right.
        choices: the different texts to choose rows by; empty for a column of numbers, and for too few or too many.
    """

    heading: str
    number: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A value of a grid.

    Attributes:
        text: what is shown.
        key: the number that rows are ordered by, in full; None for a text, and where there is none.
        bold: whether it stands out.
    """

    text: str
    key: float | None = None
    bold: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: what it is of.
        columns: its columns.
        rows: for each row a cell a column.
        notes: what a reader must know.
        live: whether its rows can be ordered and chosen; the layout that a command prints stays as it is.
        folded: whether it is shown on demand.
        ends: numbers of the rows that end a group.
    """

    kind: ClassVar[str] = "grid"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    live: bool = True
    folded: bool = False
    ends: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Shown:
    """How a column of a data frame becomes one of a grid.

    Attributes:
        heading: name of the column in the grid.
        value: name of the column of the frame.
        digits: decimals of numbers; None for texts.
        low, high: columns of the ends of its interval, which stand in brackets behind it where they are there.
        signed: whether positive numbers have their sign.
        form: makes the text of a number instead.
    """

    heading: str
    value: str
    digits: int | None = None
    low: str = ""
    high: str = ""
    signed: bool = False
    form: Callable[[float], str] | None = None

    def cell(self, row: Mapping[Any, Any]) -> Cell:
        """The value of a row of the frame."""
        value = row[self.value]
        if pd.isna(value):
            return Cell("")
        if self.digits is None:
            return Cell(str(value))
        text = self._text(value)
        if self.low in row and not pd.isna(row[self.low]):
            text += f" [{self._text(row[self.low])}, {self._text(row[self.high])}]"
        return Cell(text, None if math.isinf(value) else float(value))

    def _text(self, number: float) -> str:
        return self.form(number) if self.form else f"{number:{'+' if self.signed else ''}.{self.digits}f}"


def grid(frame: pd.DataFrame, shown: Sequence[Shown], title: str, notes: Iterable[str] = (), **how: Any) -> Grid:
    """A grid of a data frame, whose rows can be ordered by the numbers in full and chosen by the texts.

    Args:
        frame: the data, tidy.
        shown: the grid's columns; those whose column of the frame is missing or holds nothing are left out.
        title: what it is of.
        notes: what a reader must know.
        how: further fields of `Grid`.
    """
    kept = [each for each in shown if each.value in frame and frame[each.value].notna().any()]
    rows = tuple(tuple(each.cell(row) for each in kept) for row in frame.to_dict("records"))
    columns = [
        Column(each.heading, each.digits is not None, () if each.digits is not None else _choices(texts))
        for each, texts in zip(kept, zip(*rows, strict=True), strict=True)
    ]
    return Grid(title, tuple(columns), rows, tuple(notes), **how)


def _choices(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The different texts of a column in their order, if there are several and not too many."""
    texts = tuple(dict.fromkeys(cell.text for cell in cells))
    return texts if 1 < len(texts) <= min(MOST_CHOICES, len(cells) - 1) else ()


def printed(report: Report, *, notes: bool = True) -> Grid:
    """The layout of a report as commands print it."""
    table: Table = report.layout
    labels = len(table.labels)
    columns = [Column(name, number >= labels) for number, name in enumerate((*table.labels, *table.columns))]
    rows = tuple(
        tuple(Cell(text, bold=table.is_bold(number, position)) for position, text in enumerate(row))
        for number, row in enumerate(table.rows)
    )
    ends = frozenset(number for number in range(len(rows)) if table.ends_group(number))
    return Grid(table.title, tuple(columns), rows, table.notes if notes else (), live=False, ends=ends)


@dataclass(frozen=True)
class Outline:
    """The contours of one mask of a case.

    Attributes:
        name: `truth`, or the operator.
        number: of the mask among those of its picture; 0 is the truth.
        colour: of its lines.
        paths: of disc and cup, as the `d` of an SVG path, in pixels of the picture.
    """

    name: str
    number: int
    colour: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A photograph with contours to switch on and off.

    Attributes:
        holdout, case: the unseen domain and the case.
        phantom: whether it is synthetic.
        said: what is said of it.
        width, height: of the picture in pixels.
        photograph: the picture as a `data:` address.
        outlines: the truth's and each operator's.
    """

    holdout: str
    case: str
    phantom: bool
    said: str
    width: int
    height: int
    photograph: str
    outlines: tuple[Outline, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures of cases."""

    kind: ClassVar[str] = "gallery"
    pictures: tuple[Picture, ...]

    @property
    def keys(self) -> list[Outline]:
        """An outline of each name, to tell which is which."""
        return list({outline.number: outline for each in self.pictures for outline in each.outlines}.values())


Block = Text | Lines | Code | Figure | Grid | Gallery


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: a word that its address ends with.
        title: its heading.
        blocks: what it shows.
        lacking: why it shows nothing, or no more; empty where it shows all that it has.
    """

    name: str
    title: str
    blocks: tuple[Block, ...] = ()
    lacking: str = ""


@dataclass(frozen=True)
class Part:
    """All sections of one kind of photographs.

    Attributes:
        phantom: whether the photographs are synthetic, which every section then says.
        sections: in their order.
    """

    phantom: bool
    sections: tuple[Section, ...]
