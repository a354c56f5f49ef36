"""Tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from fundus_seg.data.check import RootCheck, Spread
    from fundus_seg.data.housekeeping import CacheItem
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


def print_check(found: RootCheck) -> None:
    """Print a row for each split, then a line for each problem, errors first, then how many there are."""
    shown = RichTable(title=found.root, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("", "split", "frames", "greys"):
        shown.add_column(name)
    for name in ("cases", "no disc", "no cup", "cup at edge", "disc cut", "disc / frame", "cup / disc"):
        shown.add_column(name, justify="right")
    for split in found.splits:
        shown.add_row(
            split.domain,
            split.split,
            _most_common(split.frames),
            _most_common(split.greys),
            *map(str, (split.cases, split.empty_disc, split.empty_cup, split.cup_touches_background, split.disc_cut)),
            _mean_sd(split.disc_to_frame),
            _mean_sd(split.cup_to_disc),
        )
    console = Console()
    console.print(shown)
    errors, warnings = found.problems("error"), found.problems("warning")
    for severity, problems in (("error", errors), ("warning", warnings)):
        for problem in problems:
            console.print(f"{severity}: {problem}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(errors)} errors, {len(warnings)} warnings", highlight=False)


def print_cache(folder: Path, items: Sequence[CacheItem]) -> None:
    """Print a row for each item of the cache, then their size together."""
    shown = RichTable(title=str(folder), title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("what", "made", "name"):
        shown.add_column(name, overflow="fold")
    shown.add_column("MB", justify="right")
    for item in items:
        made = datetime.fromtimestamp(item.made).isoformat(" ", "minutes")
        shown.add_row(item.what, made, str(item.path.relative_to(folder)), f"{item.size / 1e6:.1f}")
    console = Console()
    console.print(shown)
    console.print(f"{len(items)} items, {sum(item.size for item in items) / 1e6:.1f} MB", highlight=False)


def _most_common(counts: Mapping[Any, int], most: int = 3) -> str:
    names = [str(name) for name in sorted(counts, key=lambda name: -counts[name])]
    return " ".join(names[:most]) + (f" +{len(names) - most}" if len(names) > most else "")


def _mean_sd(spread: Spread) -> str:
    return " ± ".join(f"{value:.2f}" for value in (spread.mean, spread.sd) if value is not None)
