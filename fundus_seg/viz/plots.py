"""Plots for a paper: box plots by domain, learning curves, and many measures by domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fundus_seg.viz.style import MEDIAN, box, figure_of, legend, line, plot_style

Floats = NDArray[np.floating]
_GOLDEN = 0.618034  # its multiples, modulo 1, spread any number of dots evenly, and the same each time


def draw_boxes(
    cases: pd.DataFrame, *, label: str, title: str, bounds: tuple[float, float] | None = None, runs: int = 1
) -> Figure:
    """Box plots of one metric: a row of axes per structure, a group per unseen domain, a box per operator.

    Boxes hold the middle half of the cases with the median; whiskers end at the last case within 1.5 times the box's
    height; every case is a dot, hollow where it is `penalised`. Above each box stands how many cases it is of, and in
    brackets how many of them are penalised.

    Args:
        cases: columns column (whose order is that of the boxes), holdout, structure, value and penalised (whether an
            empty prediction has a part in the value), one row per case; rows whose value is NaN are left out.
        label: the metric with its unit.
        title: title of the figure.
        bounds: least and largest value that the metric can have.
        runs: how many runs a value is the mean of, at most; the axis says what a dot is.
    """
    structures, columns, holdouts = (list(dict.fromkeys(cases[name])) for name in ("structure", "column", "holdout"))
    holdouts.sort()
    with plot_style():
        width = 1.6 + max(0.42 * len(columns) + 0.5, 1.2) * len(holdouts)
        figure, grid = figure_of(title, (max(width, 4.5), 2.7 * len(structures)), len(structures), 1, sharex=True)
        pitch = 0.86 / len(columns)
        for axes, structure in zip(grid[:, 0], structures, strict=True):
            here = cases[cases["structure"] == structure].dropna(subset="value")
            for number, column in enumerate(columns):
                cells = [here[(here["column"] == column) & (here["holdout"] == holdout)] for holdout in holdouts]
                centres = np.arange(len(holdouts)) + (number - (len(columns) - 1) / 2) * pitch
                _boxes(axes, [cell["value"].to_numpy() for cell in cells], centres, 0.8 * pitch, number)
                for centre, cell in zip(centres, cells, strict=True):
                    _dots(axes, centre, 0.6 * pitch, cell)
            axes.set(ylabel=f"{structure}: {label}", xlim=(-0.5, len(holdouts) - 0.5))
            axes.set_xticks(range(len(holdouts)), holdouts)
            if bounds:
                low, high = axes.get_ylim()
                axes.set_ylim(max(low, bounds[0] - 0.02 * (high - low)), min(high, bounds[1] + 0.02 * (high - low)))
        dots = "a dot is a case; hollow and in brackets: empty prediction"
        if runs > 1:
            dots = f"a dot is a case's mean over runs; hollow and in brackets: empty prediction in 1 to {runs} of them"
        grid[-1, 0].set_xlabel(f"unseen domain\n({dots})")
        legend(figure, [Patch(**box(number), label=column) for number, column in enumerate(columns)])
    return figure


def _dots(axes: Axes, centre: float, width: float, cell: pd.DataFrame) -> None:
    """The cases of one box, with their numbers above it."""
    penalised = cell["penalised"].to_numpy(bool)
    across, values = centre + _spread(len(cell), width), cell["value"].to_numpy()
    axes.scatter(across[~penalised], values[~penalised], s=4, color="black", alpha=0.5, linewidths=0, zorder=3)
    missed = axes.scatter(across[penalised], values[penalised], s=9, color="white", linewidths=0.7, zorder=3)
    missed.set_edgecolor("black")
    count = f"{len(cell)}" + (f" ({penalised.sum()})" if penalised.any() else "")
    axes.annotate(count, (centre, 1), xycoords=("data", "axes fraction"), fontsize=6, ha="center", va="bottom")


def _boxes(axes: Axes, values: Sequence[Floats], centres: Sequence[float] | Floats, width: float, number: int) -> None:
    """Boxes of column or domain `number`; every value is drawn beside them, so none is drawn as a flier."""
    axes.boxplot(
        values,
        positions=centres,
        widths=width,
        patch_artist=True,
        showfliers=False,
        boxprops=box(number),
        medianprops=MEDIAN,
    )


def _spread(count: int, width: float) -> Floats:
    """Offsets of dots, by which few of them cover one another."""
    return (_GOLDEN * np.arange(count) % 1 - 0.5) * width


def draw_learning_curves(epochs: pd.DataFrame, *, curves: Mapping[str, str], title: str) -> Figure:
    """Learning curves: a row of axes per curve, a column per unseen domain, a line per operator.

    A line is the mean over runs, its band reaches from the least run to the largest.

    Args:
        epochs: columns column, holdout, epoch and those of `curves`, one row per run and epoch.
        curves: labels with units, by column of `epochs`.
        title: title of the figure.
    """
    columns, holdouts = list(dict.fromkeys(epochs["column"])), sorted(epochs["holdout"].unique())
    size = (max(2.4 * len(holdouts) + 0.8, 4.5), 2.0 * len(curves) + 0.8)
    with plot_style():
        figure, grid = figure_of(title, size, len(curves), len(holdouts), sharex=True, sharey="row")
        for row, (curve, label) in zip(grid, curves.items(), strict=True):
            row[0].set_ylabel(label)
            for axes, holdout in zip(row, holdouts, strict=True):
                for number, column in enumerate(columns):
                    here = epochs[(epochs["column"] == column) & (epochs["holdout"] == holdout)]
                    runs = here.groupby("epoch")[curve].agg(["mean", "min", "max"])
                    look = line(number)
                    axes.plot(runs.index, runs["mean"], **look, marker="o" if len(runs) == 1 else "")
                    axes.fill_between(runs.index, runs["min"], runs["max"], color=look["color"], alpha=0.2, linewidth=0)
        for axes, holdout in zip(grid[0], holdouts, strict=True):
            axes.set_title(f"unseen {holdout}")
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(figure, [Line2D([], [], **line(number), label=column) for number, column in enumerate(columns)])
    return figure


def draw_small_multiples(cases: pd.DataFrame, *, labels: Mapping[str, str], title: str) -> Figure:
    """Box plots of many measures: axes per measure, a box per domain, a dot per case.

    Args:
        cases: columns domain (whose order is that of the boxes) and those of `labels`, one row per case; NaN is left
            out.
        labels: of the measures, with units, by column of `cases`.
        title: title of the figure.
    """
    domains = list(dict.fromkeys(cases["domain"]))
    columns = min(7, len(labels))
    rows = -(-len(labels) // columns)
    with plot_style():
        figure, grid = figure_of(title, (max(1.6 * columns, 4.5), 1.7 * rows + 0.5), rows, columns)
        for axes, (measure, label) in zip(grid.flat, labels.items(), strict=False):
            for number, domain in enumerate(domains):
                values = cases.loc[cases["domain"] == domain, measure].dropna().to_numpy()
                _boxes(axes, [values], [number], 0.7, number)
                across = number + _spread(len(values), 0.6)
                axes.scatter(across, values, s=2, color="black", alpha=0.35, linewidths=0, zorder=3)
            axes.set_title(label)
            axes.set_xlim(-0.6, len(domains) - 0.4)
            axes.set_xticks(range(len(domains)), domains)
        for axes in grid.flat[len(labels) :]:
            axes.remove()
    return figure
