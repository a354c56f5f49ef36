"""Published tables as CSV files: COLUMNS in any order; lines that begin with # are notes."""

from __future__ import annotations

import csv
import importlib.resources
import math
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from fundus_seg.errors import DataError, UsageError, counted, unknown_name
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.statistics.equivalence import Summary

COLUMNS = ("metric", "structure", "holdout", "operator", "mean", "sd", "runs")
STRUCTURE_NAMES = {"od": "disc", "oc": "cup", "disc": "disc", "cup": "cup"}
PRESETS = {"tvconv2022": ("paper", "released-code")}
"""For each table that ships with the package, our presets of the experiment that made it."""


@dataclass(frozen=True)
class PublishedCell:
    """One row of a published table.

    Attributes:
        name: the metric as the table names it.
        metric: key of our metric that it is compared with.
        structure: `disc` or `cup`.
        holdout, operator: as the table names them.
        summary: mean, SD (NaN if the table has none) and number of runs.
    """

    name: str
    metric: str
    structure: str
    holdout: str
    operator: str
    summary: Summary


@dataclass(frozen=True)
class PublishedTable:
    """A table that others have published.

    Attributes:
        name: of the table, or the path of its file.
        notes: its source, and what a reader must know.
        presets: our presets of the experiment that made it, if known.
        cells: its rows.
    """

    name: str
    notes: tuple[str, ...]
    presets: tuple[str, ...]
    cells: tuple[PublishedCell, ...]


def metric_names() -> dict[str, str]:
    """The keys of our metrics, by the names that a published table may use, in lower case with dashes."""
    names = {metric.replace("_", "-"): metric for metric in METRICS}
    return names | {name: key for key, metric in METRICS.items() for name in metric.published_as}


def published_names() -> list[str]:
    """Names of the tables that ship with the package."""
    return sorted(entry.name.removesuffix(".csv") for entry in _folder().iterdir() if entry.name.endswith(".csv"))


def read_published(name_or_path: str) -> PublishedTable:
    """A table that ships with the package, by its name, or that of a CSV file.

    Raises:
        UsageError: neither.
        DataError: a file that cannot be read, or a row that is wrong; the row is named.
    """
    if name_or_path in published_names():
        text = (_folder() / f"{name_or_path}.csv").read_text("utf8")
        return _parsed(text, name_or_path, PRESETS.get(name_or_path, ()))
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(unknown_name("table", name_or_path, published_names()) + "; or give the path of a CSV file")
    try:
        return _parsed(path.read_text("utf-8-sig"), name_or_path, ())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text; save it as CSV") from error


def _folder() -> Traversable:
    return importlib.resources.files("fundus_seg.reporting") / "published"


def _parsed(text: str, name: str, presets: tuple[str, ...]) -> PublishedTable:
    lines = text.splitlines()
    notes = tuple(line.lstrip("# ").rstrip() for line in lines if line.startswith("#"))
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    rows = [[value.strip() for value in row] for row in csv.reader(line for _, line in numbered)]
    if not rows or sorted(rows[0]) != sorted(COLUMNS):
        raise DataError(f"{name}: the first row must name the columns {','.join(COLUMNS)}")
    if len(rows) == 1:
        raise DataError(f"{name}: no row below the names of the columns")
    cells: dict[tuple[str, ...], PublishedCell] = {}
    for (number, _), row in zip(numbered[1:], rows[1:], strict=True):
        where = f"{name}: line {number}"
        if len(row) != len(COLUMNS):
            raise DataError(f"{where}: {counted(len(row), 'value')} for {len(COLUMNS)} columns; write one for each")
        cell = _cell(dict(zip(rows[0], row, strict=True)), where)
        key = (cell.name, cell.structure, cell.holdout, cell.operator)
        if cells.setdefault(key, cell) is not cell:
            raise DataError(f"{where}: {' '.join(key)} stands twice; leave one out")
    return PublishedTable(name, notes, presets, tuple(cells.values()))


def _cell(row: dict[str, str], where: str) -> PublishedCell:
    metrics = metric_names()
    metric = row["metric"].lower().replace("_", "-")
    if metric not in metrics:
        raise DataError(f"{where}: {unknown_name('metric', row['metric'], map(str.upper, metrics))}")
    structure = STRUCTURE_NAMES.get(row["structure"].lower())
    if structure is None:
        raise DataError(f"{where}: {unknown_name('structure', row['structure'], STRUCTURE_NAMES)}")
    for column in ("holdout", "operator"):
        if not row[column]:
            raise DataError(f"{where}: no {column}; name it as the runs do")
    mean = _number(row, "mean", where)
    sd = _number(row, "sd", where) if row["sd"] else math.nan
    if sd < 0:
        raise DataError(f"{where}: sd {row['sd']} is below 0; give the standard deviation over runs")
    if not row["runs"].isascii() or not row["runs"].isdigit() or int(row["runs"]) < 1:
        raise DataError(f"{where}: runs '{row['runs']}' is not a number of runs; write 1, 2, ...")
    summary = Summary(mean, sd, int(row["runs"]))
    return PublishedCell(row["metric"], metrics[metric], structure, row["holdout"], row["operator"], summary)


def _number(row: dict[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {column} '{row[column]}' is not a number; write it as 87.31")
    return value
