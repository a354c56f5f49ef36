"""Curves of some quantities, with the bands of their intervals: a row of axes per quantity, a column per domain."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fundus_seg.viz.style import figure_of, legend, line, plot_style


def draw_curves(points: pd.DataFrame, *, rows: Mapping[str, str], panel: str, across: str, title: str) -> Figure:
    """A row of axes per quantity, a column per domain, a line per operator or the like.

    Args:
        points: columns row (a key of `rows`), panel (the domain), line (what a line is of), x, y, low and high (the
            ends of y's interval), one row per dot; NaN is left out. The order of their first rows is that of the axes
            and lines.
        rows: the quantities with their units, by key.
        panel: what stands above the axes before the domain: `unseen`.
        across: what x is, with its unit.
        title: title of the figure.
    """
    panels, lines = list(dict.fromkeys(points["panel"])), list(dict.fromkeys(points["line"]))
    size = (max(2.4 * len(panels) + 0.8, 4.5), 2.2 * len(rows) + 0.9)
    with plot_style():
        figure, grid = figure_of(title, size, len(rows), len(panels), sharex=True, sharey="row")
        for axes_row, (key, label) in zip(grid, rows.items(), strict=True):
            axes_row[0].set_ylabel(label)
            for axes, domain in zip(axes_row, panels, strict=True):
                here = points[(points["row"] == key) & (points["panel"] == domain)]
                for number, name in enumerate(lines):
                    own, look = here[here["line"] == name].sort_values("x"), line(number)
                    axes.plot(own["x"], own["y"], **look, marker="o", markersize=3)
                    axes.fill_between(own["x"], own["low"], own["high"], color=look["color"], alpha=0.2, linewidth=0)
                    if len(own) == 1:  # a band has no width there
                        axes.vlines(own["x"], own["low"], own["high"], color=look["color"], linewidth=0.8)
        for axes, domain in zip(grid[0], panels, strict=True):
            axes.set_title(f"{panel} {domain}".strip())
        for axes in grid[-1]:
            axes.set_xlabel(across)
        legend(figure, [Line2D([], [], **line(number), label=name) for number, name in enumerate(lines)])
    return figure
