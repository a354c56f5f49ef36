"""Scores against costs: a dot with its interval for each network."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from fundus_seg.viz.style import figure_of, legend, plot_style, point

_NARROWEST = 1.05
"""Quotient of the largest and the smallest cost below which the axis goes from half to twice of them."""


def draw_trade_off(points: pd.DataFrame, *, rows: Mapping[str, str], panels: Mapping[str, str], title: str) -> Figure:
    """A row of axes per score, a column per cost, on a logarithmic axis; a dot with the interval of its score each.

    Args:
        points: columns name (of a network), row (a key of `rows`), panel (a key of `panels`), x, y, low and high (the
            ends of y's interval), one row per dot; NaN is left out. The order of names is that of the legend.
        rows: the scores with their units, by key.
        panels: the costs with their units, by key.
        title: title of the figure.
    """
    names = list(dict.fromkeys(points["name"]))
    with plot_style():
        size = (3.0 * len(panels) + 0.8, 2.6 * len(rows) + 1.2)
        figure, grid = figure_of(title, size, len(rows), len(panels), sharex="col", sharey="row")
        for axes_row, (row, score) in zip(grid, rows.items(), strict=True):
            axes_row[0].set_ylabel(score)
            for axes, panel in zip(axes_row, panels, strict=True):
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(LogFormatter(minor_thresholds=(2, 0.8)))
                axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.8)))
                here = points[(points["row"] == row) & (points["panel"] == panel)].dropna(subset=["x", "y"])
                for name, own in here.groupby("name"):
                    around = [own["y"] - own["low"], own["high"] - own["y"]]
                    look = point(names.index(str(name)))
                    axes.errorbar(own["x"], own["y"], yerr=around, **look, linestyle="", elinewidth=0.8, markersize=5)
        for axes, (panel, cost) in zip(grid[-1], panels.items(), strict=True):
            axes.set_xlabel(cost)
            costs = points.loc[points["panel"] == panel, "x"]
            if costs.max() < _NARROWEST * costs.min():  # an axis as narrow as rounding has no ticks, nor any dot
                axes.set_xlim(costs.min() / 2, 2 * costs.max())
        legend(figure, [Line2D([], [], **point(number), linestyle="", label=name) for number, name in enumerate(names)])
    return figure
