"""A table on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from fundus_seg.evaluation.tables import Table


def print_table(table: Table) -> None:
    """Print with a rule between metrics, each metric and structure named once."""
    shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("", "structure", "unseen"):
        shown.add_column(name, no_wrap=True)
    for column in table.columns:
        shown.add_column(column, justify="right")
    before = ("", "")
    for position, (metric, structure, holdout, *cells) in enumerate(table.rows):
        last = position + 1 == len(table.rows) or table.rows[position + 1][0] != metric
        shown.add_row(
            metric if metric != before[0] else "",
            structure if (metric, structure) != before else "",
            holdout,
            *cells,
            end_section=last,
        )
        before = (metric, structure)
    console = Console()
    console.print(shown)
    for note in table.notes:
        console.print(note, style="dim", highlight=False, soft_wrap=True)
