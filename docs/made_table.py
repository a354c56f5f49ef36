"""Markdown tables of the pages, and the tables of benchmarks/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> str:
    """A Markdown table; `numbers` columns, from the second on, are aligned to the right."""
    rule = ["---:" if 0 < column <= numbers else "---" for column in range(len(header))]
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "|".join(rule) + "|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def benchmark_rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page of benchmarks/."""
    lines = (BENCHMARKS / page).read_text("utf8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def milliseconds(page: str, job: str) -> float:
    """The median time of one job of a page of benchmarks/."""
    (found,) = (cells[1] for cells in benchmark_rows(page) if cells[0] == job)
    return float(found.split()[0])


def page_below_title(page: str) -> str:
    """A page of benchmarks/ without its title, its headings one level lower."""
    text = (BENCHMARKS / page).read_text("utf8").partition("\n")[2].strip()
    return text.replace("\n## ", "\n### ")
