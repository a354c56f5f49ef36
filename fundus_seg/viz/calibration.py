"""Reliability diagrams: what probabilities were given, and how often they came true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fundus_seg.viz.style import dot, figure_of, legend, line, plot_style

_LABELS = {"before": "as trained", "after": "with temperature"}


def draw_reliability(bins: pd.DataFrame, *, title: str) -> Figure:
    """Reliability diagrams: a row of axes per structure, a column per group of cases.

    A point is a bin of the probability, over the pixels of all runs: their mean probability, and the share of them that
    belongs to the structure. On the diagonal the two agree; below it the network is too sure.

    Args:
        bins: columns structure, where, time (`before` or `after`), bin, count, probability and frequency, one row per
            bin and run.
        title: title of the figure.
    """
    structures, groups = list(dict.fromkeys(bins["structure"])), list(dict.fromkeys(bins["where"]))
    sums = bins.assign(p=bins["probability"] * bins["count"], f=bins["frequency"] * bins["count"])
    pooled = sums.groupby(["structure", "where", "time", "bin"])[["count", "p", "f"]].sum().reset_index()
    with plot_style():
        size = (max(2.7 * len(groups) + 0.6, 4.5), 2.7 * len(structures) + 1.0)
        figure, grid = figure_of(title, size, len(structures), len(groups), sharex=True, sharey=True)
        for row, structure in zip(grid, structures, strict=True):
            for axes, where in zip(row, groups, strict=True):
                axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
                for number, time in enumerate(_LABELS):
                    here = pooled[(pooled["structure"] == structure) & (pooled["where"] == where)]
                    here = here[(here["time"] == time) & (here["count"] > 0)]
                    count = here["count"].to_numpy()
                    axes.plot(
                        here["p"] / count, here["f"] / count, **line(number), marker=dot(number)["marker"], markersize=4
                    )
                axes.set_title(f"{structure}, {where}")
                axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6))
        for axes in grid[:, 0]:
            axes.set_ylabel("share that belongs to it")
        for axes in grid[-1]:
            axes.set_xlabel("probability")
        keys = [Line2D([], [], **_look(number), label=label) for number, label in enumerate(_LABELS.values())]
        legend(figure, keys)
    return figure


def _look(number: int) -> dict[str, Any]:
    return {**line(number), "marker": dot(number)["marker"], "markersize": 4}
