"""Read the tables of downloads: the first sheet of a workbook, as texts. Macros and links are not followed."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fundus_seg.errors import DataError, one_line

_MOST_UNPACKED = 1 << 26
_MOST_ROWS, _MOST_COLUMNS = 100_000, 200


def read_workbook(path: Path) -> list[list[str]]:
    """The rows of the first sheet of an .xlsx file, each cell as a text without spaces about it.

    Raises:
        DataError: the file is no whole workbook, or unpacks to more than 64 MiB.
    """
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


def columns(rows: list[list[str]], *titles: str) -> tuple[int, list[int]]:
    """The row that holds some titles, and the column of each; upper and lower case alike.

    Raises:
        KeyError: no row holds all of them.
    """
    for place, row in enumerate(rows):
        lower = [cell.lower() for cell in row]
        if all(title.lower() in lower for title in titles):
            return place, [lower.index(title.lower()) for title in titles]
    raise KeyError(f"no row with the titles {', '.join(titles)}")


def _text(cell: object) -> str:
    """A cell as a text; whole numbers have no decimals, since Excel stores all numbers as fractions."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
