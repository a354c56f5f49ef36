"""Bland-Altman plots, and the limits of agreement that they show."""

from __future__ import annotations

import math
import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fundus_seg.errors import counted
from fundus_seg.viz.style import dot, figure_of, legend, plot_style


def draw_bland_altman(cases: pd.DataFrame, *, title: str) -> Figure:
    """Bland-Altman plots of one quantity, axes per operator: prediction - truth over the mean of the two.

    The solid line is the bias, the dashed ones the 95 % limits of agreement (`limits_of_agreement`). Several runs of
    one eye are several pairs, but say less than as many pairs of several eyes: the limits allow for it.

    Args:
        cases: columns column, holdout, case, predicted and true, one row per pair. Pairs without a true value, and
            pairs without a predicted one, are left out and counted separately.
        title: title of the figure; it names the quantity, with its unit, if any.
    """
    every = cases
    cases = cases.dropna(subset=["predicted", "true"])
    columns = [column for column in every["column"].unique() if (cases["column"] == column).any()]
    if cases.duplicated(["column", "holdout", "case"]).any():
        title = f"{title}. A dot is a run of an eye; limits allow for runs of one eye (Bland and Altman 2007)"
    holdouts = sorted(cases["holdout"].unique())
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    with plot_style():
        size = (max(3.0 * across + 0.6, 4.5), 2.6 * down + 0.7)
        figure, grid = figure_of(title, size, down, across, sharex=True, sharey=True)
        for axes, column in zip(grid.flat, columns, strict=False):
            here = cases[cases["column"] == column]
            for number, holdout in enumerate(holdouts):
                predicted, true = here.loc[here["holdout"] == holdout, ["predicted", "true"]].to_numpy(float).T
                axes.scatter((predicted + true) / 2, predicted - true, s=12, alpha=0.7, linewidths=0, **dot(number))
            eyes = here.groupby(["holdout", "case"]).ngroup()
            bias, low, high = limits_of_agreement(here["predicted"] - here["true"], eyes)
            for level, linestyle in ((bias, "-"), (low, "--"), (high, "--")):
                axes.axhline(level, color="black", linewidth=0.9, linestyle=linestyle)
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
            Line2D([], [], **dot(number), linestyle="", label=f"unseen {holdout}")
            for number, holdout in enumerate(holdouts)
        ]
        legend(figure, keys)
    return figure


def _counts(pairs: pd.DataFrame, eyes: int) -> str:
    """`36 pairs of 12 eyes (left out: 3 undefined, 1 without truth)`."""
    truthless = pairs["true"].isna()
    excluded, undefined = int(truthless.sum()), int((pairs["predicted"].isna() & ~truthless).sum())
    why = [f"{count} {what}" for count, what in ((undefined, "undefined"), (excluded, "without truth")) if count]
    left_out = f" (left out: {', '.join(why)})" if why else ""
    return f"{counted(len(pairs) - excluded - undefined, 'pair')} of {counted(eyes, 'eye')}{left_out}"


def limits_of_agreement(differences: pd.Series, eyes: pd.Series) -> tuple[float, float, float]:
    """Bias and 95 % limits of agreement: the mean difference of two measurements, and that ∓ 1.96 SD.

    The SD is that of one more measurement of one more eye: its variance is that between eyes plus that within an eye,
    by a one-way analysis of variance (Bland and Altman, Journal of Biopharmaceutical Statistics 17, 2007). With one
    pair an eye it is the SD (n - 1) of the differences (Bland and Altman, Lancet 1986).

    Args:
        differences: (N,) predicted - true.
        eyes: (N,) number of the eye of each difference, on the same index.

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
    runs = (pairs - float((sizes**2).sum()) / pairs) / (count - 1)  # mean runs per eye (n0 of an unbalanced ANOVA)
    spread = 1.96 * math.sqrt(max(between - within, 0) / runs + within)
    return bias, bias - spread, bias + spread
