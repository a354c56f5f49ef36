"""Risk against coverage: what the cases cost that are kept, where those that are trusted least are declined."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fundus_seg.viz.style import figure_of, legend, line, plot_style

_CURVES = {"risk": "kept by trust", "oracle": "kept by an oracle, which knows the losses", "chance": "kept by chance"}


def draw_risk_coverage(curves: pd.DataFrame, *, title: str) -> Figure:
    """Risk-coverage curves: a row of axes per operator, a column per unseen domain, three lines per run.

    Args:
        curves: columns column, holdout, seed, kept (share of the cases, in [0, 1]), risk, oracle and chance (mean loss
            of what is kept), one row per run and number of kept cases.
        title: title of the figure.
    """
    columns, holdouts = list(dict.fromkeys(curves["column"])), sorted(curves["holdout"].unique())
    size = (max(2.4 * len(holdouts) + 0.8, 4.5), 2.2 * len(columns) + 0.9)
    with plot_style():
        figure, grid = figure_of(title, size, len(columns), len(holdouts), sharex=True, sharey=True)
        for row, column in zip(grid, columns, strict=True):
            row[0].set_ylabel("mean loss, 1 − DSC")
            for axes, holdout in zip(row, holdouts, strict=True):
                here = curves[(curves["column"] == column) & (curves["holdout"] == holdout)]
                for _, run in here.groupby("seed"):
                    for number, curve in enumerate(_CURVES):
                        axes.plot(run["kept"], run[curve], **line(number))
                axes.set_title(f"{column}, unseen {holdout}")
        for axes in grid[-1]:
            axes.set_xlabel("share of cases kept")
        legend(figure, [Line2D([], [], **line(number), label=label) for number, label in enumerate(_CURVES.values())])
    return figure
