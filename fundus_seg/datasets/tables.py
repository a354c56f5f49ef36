"""Read the tables of downloads, as texts: CSV files, and the first sheet of workbooks without its macros and links."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fundus_seg.datasets.content import content_of
from fundus_seg.errors import DataError, one_line

_MOST_UNPACKED = 1 << 26
_MOST_ROWS, _MOST_COLUMNS = 100_000, 200


def records(path: Path, *columns: str | tuple[str, ...] | int) -> Iterator[list[str]]:
    """The rows below the titles of a table, as the cells in some columns.

    Args:
        path: a file .xlsx or .csv.
        columns: the titles of the columns, in upper and lower case alike, or their numbers from 0; a tuple has the
            titles that one column may have. The titles stand in the first row that holds one for each column.

    Raises:
        DataError: the table cannot be read, or lacks a title.
    """
    rows = _workbook(path) if path.suffix.lower() == ".xlsx" else _csv(path)
    for start, row in enumerate(rows):
        titles = [cell.lower() for cell in row]
        found = [_place(titles, column) for column in columns]
        places = [place for place in found if place is not None]
        if len(places) == len(columns):
            widest = max(places)
            return ([row[place] for place in places] for row in rows[start + 1 :] if len(row) > widest)
    named = (" or ".join(_titles(column)) for column in columns if not isinstance(column, int))
    raise DataError(f"no row with the titles {', '.join(named)}; download it again", path)


def _titles(column: str | tuple[str, ...]) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _place(titles: Sequence[str], column: str | tuple[str, ...] | int) -> int | None:
    """The number of a column in a row of titles in lower case; None if none of its titles stands there."""
    if isinstance(column, int):
        return column
    return next((titles.index(title.lower()) for title in _titles(column) if title.lower() in titles), None)


def _csv(path: Path) -> list[list[str]]:
    lines = content_of(path, _MOST_UNPACKED).decode("utf-8-sig", errors="replace").splitlines()[:_MOST_ROWS]
    try:
        return [[cell.strip() for cell in row[:_MOST_COLUMNS]] for row in csv.reader(lines)]
    except csv.Error as error:
        raise DataError(f"not a whole CSV file ({one_line(error)}); download it again", path) from error


def _workbook(path: Path) -> list[list[str]]:
    """The rows of the first sheet of an .xlsx file."""
    import openpyxl

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST_UNPACKED:
                raise DataError(f"a workbook of more than {_MOST_UNPACKED >> 20} MiB; save its first sheet alone", path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            rows = book.worksheets[0].iter_rows(values_only=True, max_row=_MOST_ROWS, max_col=_MOST_COLUMNS)
            return [[_text(cell) for cell in row] for row in rows]
        finally:
            book.close()
    except DataError:
        raise
    except Exception as error:  # a reader may raise any exception when the file is not what it seems
        raise DataError(f"not a whole .xlsx workbook ({one_line(error)}); download it again", path) from error


def _text(cell: object) -> str:
    """A cell as a text; whole numbers have no decimals, since Excel stores all numbers as fractions."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
