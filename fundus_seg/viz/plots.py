"""Plots for a paper: box plots by domain, Bland-Altman plots, learning curves; as PNG and SVG.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; hatches and line styles repeat what the
colours say. Figures are drawn apart from pyplot and from the user's matplotlibrc, so equal data give equal files.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fundus_seg.runs.atomic import atomic_path

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
_HATCHES = ("", "////", "", "\\\\\\\\", "", "....", "", "xxxx")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 1)))
_MARKERS = "osD^vPX*"

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "savefig.dpi": 200,
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's font
    "svg.hashsalt": "fundus-seg",  # else ids are random
}
_GOLDEN = 0.618034  # its multiples, modulo 1, spread any number of dots evenly, and the same each time


def draw_boxes(cases: pd.DataFrame, *, label: str, title: str, bounds: tuple[float, float] | None = None) -> Figure:
    """Box plots of one metric: a row of axes per structure, a group per unseen domain, a box per operator.

    Boxes hold the middle half of the cases with the median; whiskers end at the last case within 1.5 times the box's
    height; every case is a dot, hollow where it is `penalised`. Above each box stands how many cases it is of, and in
    brackets how many of them are penalised.

    Args:
        cases: columns column (whose order is that of the boxes), holdout, structure, value and penalised (whether an
            empty prediction has a part in the value), a row a case; rows whose value is NaN are left out.
        label: the metric with its unit.
        title: of the figure.
        bounds: least and largest value that the metric can have.
    """
    structures, columns, holdouts = (list(dict.fromkeys(cases[name])) for name in ("structure", "column", "holdout"))
    holdouts.sort()
    with _style():
        width = 1.6 + max(0.42 * len(columns) + 0.5, 1.2) * len(holdouts)
        figure, grid = _figure(title, (max(width, 4.5), 2.7 * len(structures)), len(structures), 1, sharex=True)
        pitch = 0.86 / len(columns)
        for axes, structure in zip(grid[:, 0], structures, strict=True):
            here = cases[cases["structure"] == structure].dropna(subset="value")
            for number, column in enumerate(columns):
                cells = [here[(here["column"] == column) & (here["holdout"] == holdout)] for holdout in holdouts]
                centres = np.arange(len(holdouts)) + (number - (len(columns) - 1) / 2) * pitch
                box, median = _box(number), {"color": "black", "linewidth": 1.5}
                axes.boxplot(
                    [cell["value"].to_numpy() for cell in cells],
                    positions=centres,
                    widths=0.8 * pitch,
                    patch_artist=True,
                    showfliers=False,
                    boxprops=box,
                    medianprops=median,
                )
                for centre, cell in zip(centres, cells, strict=True):
                    _dots(axes, centre, 0.6 * pitch, cell)
            axes.set(ylabel=f"{structure}: {label}", xlim=(-0.5, len(holdouts) - 0.5))
            axes.set_xticks(range(len(holdouts)), holdouts)
            if bounds:
                low, high = axes.get_ylim()
                axes.set_ylim(max(low, bounds[0] - 0.02 * (high - low)), min(high, bounds[1] + 0.02 * (high - low)))
        grid[-1, 0].set_xlabel("unseen domain\n(a dot is a case; hollow and in brackets: empty prediction)")
        _legend(figure, [Patch(**_box(number), label=column) for number, column in enumerate(columns)])
    return figure


def _dots(axes: Axes, centre: float, width: float, cell: pd.DataFrame) -> None:
    """The cases of one box, with their numbers above it."""
    spread = (_GOLDEN * np.arange(len(cell)) % 1 - 0.5) * width
    penalised = cell["penalised"].to_numpy(bool)
    across, values = centre + spread, cell["value"].to_numpy()
    axes.scatter(across[~penalised], values[~penalised], s=4, color="black", alpha=0.5, linewidths=0, zorder=3)
    missed = axes.scatter(across[penalised], values[penalised], s=9, color="white", linewidths=0.7, zorder=3)
    missed.set_edgecolor("black")
    count = f"{len(cell)}" + (f" ({penalised.sum()})" if penalised.any() else "")
    axes.annotate(count, (centre, 1), xycoords=("data", "axes fraction"), fontsize=6, ha="center", va="bottom")


def draw_bland_altman(cases: pd.DataFrame, *, title: str) -> Figure:
    """Bland-Altman plots of one quantity, axes per operator: prediction - truth over the mean of the two.

    The solid line is the bias, the dashed ones the 95 % limits of agreement (`limits_of_agreement`). Several runs of
    one eye are several pairs, but not as good as those of several eyes: the limits know which eye a pair is of.

    Args:
        cases: columns column, holdout, case, predicted and true, a row a pair. Pairs without a true value are left out
            and counted, and so, apart from them, are those without a predicted one.
        title: of the figure; names the quantity, with its unit, if any.
    """
    every = cases
    cases = cases.dropna(subset=["predicted", "true"])
    columns = [column for column in every["column"].unique() if (cases["column"] == column).any()]
    if cases.duplicated(["column", "holdout", "case"]).any():
        title = f"{title}. A dot is a run of an eye; limits allow for runs of one eye (Bland and Altman 2007)"
    holdouts = sorted(cases["holdout"].unique())
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    with _style():
        size = (max(3.0 * across + 0.6, 4.5), 2.6 * down + 0.7)
        figure, grid = _figure(title, size, down, across, sharex=True, sharey=True)
        for axes, column in zip(grid.flat, columns, strict=False):
            here = cases[cases["column"] == column]
            for number, holdout in enumerate(holdouts):
                predicted, true = here.loc[here["holdout"] == holdout, ["predicted", "true"]].to_numpy(float).T
                axes.scatter((predicted + true) / 2, predicted - true, s=12, alpha=0.7, linewidths=0, **_dot(number))
            eyes = here.groupby(["holdout", "case"]).ngroup()
            bias, low, high = limits_of_agreement(here["predicted"] - here["true"], eyes)
            for level, line in ((bias, "-"), (low, "--"), (high, "--")):
                axes.axhline(level, color="black", linewidth=0.9, linestyle=line)
            counts = _counts(every[every["column"] == column], eyes.nunique())
            limits = f"bias {bias:+.3f}, limits {low:+.3f} to {high:+.3f}"
            axes.set_title(f"{textwrap.fill(column, 40)}\n{counts}\n{limits}", fontsize=8)
        for axes in grid.flat[len(columns) :]:
            axes.remove()
        for axes in grid.flat[: len(columns)][-across:]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("(predicted + true) / 2")
        for axes in grid[:, 0]:
            axes.set_ylabel("predicted − true")
        keys = [
            Line2D([], [], **_dot(number), linestyle="", label=f"unseen {holdout}")
            for number, holdout in enumerate(holdouts)
        ]
        _legend(figure, keys)
    return figure


def _counts(pairs: pd.DataFrame, eyes: int) -> str:
    """`36 pairs of 12 eyes (left out: 3 undefined, 1 without truth)`."""
    truthless = pairs["true"].isna()
    excluded, undefined = int(truthless.sum()), int((pairs["predicted"].isna() & ~truthless).sum())
    why = [f"{count} {what}" for count, what in ((undefined, "undefined"), (excluded, "without truth")) if count]
    left_out = f" (left out: {', '.join(why)})" if why else ""
    return f"{len(pairs) - excluded - undefined} pairs of {eyes} eyes{left_out}"


def limits_of_agreement(differences: pd.Series, eyes: pd.Series) -> tuple[float, float, float]:
    """Bias and 95 % limits of agreement: the mean difference of two measurements, and that ∓ 1.96 SD.

    The SD is that of one more measurement of one more eye: its variance is that between eyes plus that within an eye,
    by a one-way analysis of variance (Bland and Altman, Journal of Biopharmaceutical Statistics 17, 2007). With one
    pair an eye it is the SD (n - 1) of the differences (Bland and Altman, Lancet 1986).

    Args:
        differences: (N,) predicted - true.
        eyes: (N,) which eye each is of, on the same index.

    Returns:
        Bias, lower limit, upper limit. NaN limits for fewer than two eyes.
    """
    bias = float(differences.mean())
    by_eye = differences.groupby(eyes)
    sizes, means, pairs, count = by_eye.size(), by_eye.mean(), len(differences), by_eye.ngroups
    if count < 2:
        return bias, math.nan, math.nan
    between = float((sizes * (means - bias) ** 2).sum()) / (count - 1)  # mean squares
    within = float(((differences - by_eye.transform("mean")) ** 2).sum()) / max(pairs - count, 1)
    runs = (pairs - float((sizes**2).sum()) / pairs) / (
        count - 1
    )  # of an eye; as many as each has, if all have as many
    spread = 1.96 * math.sqrt(max(between - within, 0) / runs + within)
    return bias, bias - spread, bias + spread


def draw_learning_curves(epochs: pd.DataFrame, *, curves: Mapping[str, str], title: str) -> Figure:
    """Learning curves: a row of axes per curve, a column per unseen domain, a line per operator.

    A line is the mean over runs, its band reaches from the least run to the largest.

    Args:
        epochs: columns column, holdout, epoch and those of `curves`, a row a run and epoch.
        curves: labels with units, by column of `epochs`.
        title: of the figure.
    """
    columns, holdouts = list(dict.fromkeys(epochs["column"])), sorted(epochs["holdout"].unique())
    size = (max(2.4 * len(holdouts) + 0.8, 4.5), 2.0 * len(curves) + 0.8)
    with _style():
        figure, grid = _figure(title, size, len(curves), len(holdouts), sharex=True, sharey="row")
        for row, (curve, label) in zip(grid, curves.items(), strict=True):
            row[0].set_ylabel(label)
            for axes, holdout in zip(row, holdouts, strict=True):
                for number, column in enumerate(columns):
                    here = epochs[(epochs["column"] == column) & (epochs["holdout"] == holdout)]
                    runs = here.groupby("epoch")[curve].agg(["mean", "min", "max"])
                    style = _line(number)
                    axes.plot(runs.index, runs["mean"], **style, marker="o" if len(runs) == 1 else "")
                    axes.fill_between(
                        runs.index, runs["min"], runs["max"], color=style["color"], alpha=0.2, linewidth=0
                    )
        for axes, holdout in zip(grid[0], holdouts, strict=True):
            axes.set_title(f"unseen {holdout}")
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, [Line2D([], [], **_line(number), label=column) for number, column in enumerate(columns)])
    return figure


def draw_small_multiples(cases: pd.DataFrame, *, labels: Mapping[str, str], title: str) -> Figure:
    """Box plots of many measures: axes per measure, a box per domain, a dot per case.

    Args:
        cases: columns domain (whose order is that of the boxes) and those of `labels`, a row a case; NaN is left out.
        labels: of the measures, with units, by column of `cases`.
        title: of the figure.
    """
    domains = list(dict.fromkeys(cases["domain"]))
    across = min(7, len(labels))
    down = -(-len(labels) // across)
    with _style():
        figure, grid = _figure(title, (max(1.6 * across, 4.5), 1.7 * down + 0.5), down, across)
        for axes, (measure, label) in zip(grid.flat, labels.items(), strict=False):
            for number, domain in enumerate(domains):
                values = cases.loc[cases["domain"] == domain, measure].dropna().to_numpy()
                axes.boxplot(
                    values,
                    positions=[number],
                    widths=0.7,
                    patch_artist=True,
                    showfliers=False,
                    boxprops=_box(number),
                    medianprops={"color": "black", "linewidth": 1.5},
                )
                spread = (_GOLDEN * np.arange(len(values)) % 1 - 0.5) * 0.6
                axes.scatter(number + spread, values, s=2, color="black", alpha=0.35, linewidths=0, zorder=3)
            axes.set_title(label)
            axes.set_xlim(-0.6, len(domains) - 0.4)
            axes.set_xticks(range(len(domains)), domains)
        for axes in grid.flat[len(labels) :]:
            axes.remove()
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as `<stem>.png` and `<stem>.svg`, atomically; equal figures give equal bytes.

    Raises:
        RunError: the folder cannot be written.
    """
    paths = []
    for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        paths.append(stem.with_name(f"{stem.name}.{form}"))
        with _style(), atomic_path(paths[-1]) as temporary:
            figure.savefig(temporary, format=form, metadata=metadata)
    return paths


def _style() -> contextlib.AbstractContextManager[None]:
    return matplotlib.style.context(["default", _STYLE])


def _figure(title: str, size: tuple[float, float], rows: int, columns: int, **shared: Any) -> tuple[Figure, Any]:
    """A figure with its title, and its axes (rows, columns); sizes in inches."""
    figure = Figure(figsize=size, layout="constrained")
    # A title does not widen a constrained figure, so it is broken where the figure ends.
    figure.suptitle(textwrap.fill(title, int(13 * size[0]), break_on_hyphens=False), fontsize=9)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _legend(figure: Figure, keys: Sequence[Artist]) -> None:
    """Below the axes, in as many columns as the figure's width holds."""
    width = int(12 * figure.get_figwidth())
    for key in keys:
        key.set_label(textwrap.fill(str(key.get_label()), width - 6, break_on_hyphens=False))
    longest = max(len(str(key.get_label())) for key in keys) + 6
    columns = max(1, width // longest)
    figure.legend(handles=list(keys), loc="outside lower center", ncols=min(columns, len(keys)))


def _box(number: int) -> dict[str, Any]:
    return {"facecolor": _of(PALETTE, number), "hatch": _of(_HATCHES, number), "edgecolor": "black", "alpha": 0.6}


def _dot(number: int) -> dict[str, Any]:
    return {"color": _of(PALETTE, number), "marker": _of(_MARKERS, number)}


def _line(number: int) -> dict[str, Any]:
    return {"color": _of(PALETTE, number), "linestyle": _of(_LINES, number)}


def _of(looks: Sequence[Any], number: int) -> Any:
    return looks[number % len(looks)]
