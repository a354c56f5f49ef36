"""What operators with a kernel for each position learned: affinity maps beside the deviation of their kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fundus_seg.runs.kernels import LayerKernels
from fundus_seg.viz.style import figure_of, plot_style

REMOVED = {
    ("affinity",): "W without\nA",
    ("affines",): "W without\naffines",
    ("affinity", "affines"): "W without\nboth",
    ("padding",): "W without\npadding",
}
"""What stands beside the kernels as learned: the parts that are without position, and the heading of their column."""
LEARNED = "W as\nlearned"
_DIVERGING, _SEQUENTIAL, _OF_AFFINES = "RdBu_r", "viridis", "Purples"
_ROUNDING = 1e-4
_PANEL = 0.92
"""Side of a panel in inches."""


def draw_affinity(layers: Mapping[str, LayerKernels], *, title: str) -> Figure:
    """A row for each operator: its affinity maps, its affines, the deviation d of its kernels, and what remains of it.

    Affinity maps are drawn as the difference from their mean over positions, in one symmetric scale for each row; the
    numbers below are mean and SD over positions. Affines are drawn as the rms over norms, scales and shifts, from 0 to
    the row's largest; the number is their rms. Each map of deviations has a scale of its own, from 0 to its largest;
    the numbers below are the spread and this largest.

    Args:
        layers: what was measured (`runs.kernels`), by the name of its row.
        title: title of the figure.
    """
    most = max((len(each.affinity) for each in layers.values() if each.affinity is not None), default=0)
    affines = any(each.affines is not None for each in layers.values())
    headings = [f"A{number}" for number in range(1, most + 1)] + ["affines"] * affines + [LEARNED]
    headings += [
        name for removed, name in REMOVED.items() if any({*removed} <= {*each.parts} for each in layers.values())
    ]
    size = (_PANEL * len(headings) + 1.1, (_PANEL + 0.13) * len(layers) + 0.85)
    with plot_style():
        figure, grid = figure_of(title, size, len(layers), len(headings))
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, heading in zip(grid[0], headings, strict=True):
            axes.set_title(heading, fontsize=8)
        for row, (name, layer) in zip(grid, layers.items(), strict=True):
            panels = dict(zip(headings, row, strict=True))
            row[0].text(-0.12, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
            _affinity(row, layer)
            if layer.affines is not None:
                shown = np.sqrt(np.square(layer.affines).mean((0, 1)))
                _show(panels["affines"], shown, f"{np.sqrt(np.square(shown).mean()):.3f}", cmap=_OF_AFFINES, vmin=0)
            for removed, heading in [((), LEARNED), *REMOVED.items()]:
                if {*removed} <= {*layer.parts}:
                    kept = tuple(part for part in layer.parts if part not in removed)
                    largest = float(layer.deviations[kept].max())
                    text = f"{100 * layer.spread(kept):.1f} % (≤ {100 * largest:.0f})"
                    _show(panels[heading], layer.deviations[kept], text, cmap=_SEQUENTIAL, vmin=0, vmax=_scale(largest))
    return figure


def draw_epochs(epochs: Mapping[int, Mapping[str, LayerKernels]], *, title: str) -> Figure:
    """How affinity maps and kernels moved: two rows for each operator, a column for each epoch.

    The upper row is the affinity map that varies most over positions at the last epoch, as the difference from its
    mean; the lower one is the deviation d of the kernels. All epochs of a row are in the scale of the last.

    Args:
        epochs: what was measured, by epoch and name of the row; of operators with affinity maps.
        title: title of the figure.
    """
    last = epochs[max(epochs)]
    size = (_PANEL * len(epochs) + 1.1, (_PANEL + 0.13) * 2 * len(last) + 0.6)
    with plot_style():
        figure, grid = figure_of(title, size, 2 * len(last), len(epochs))
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, epoch in zip(grid[0], epochs, strict=True):
            axes.set_title(f"epoch {epoch}", fontsize=8)
        for number, (name, layer) in enumerate(last.items()):
            own = _centred(layer)
            chosen = int(np.square(own).mean((1, 2)).argmax())
            scale, limit = _scale(np.abs(own[chosen]).max()), _scale(layer.deviations[layer.parts].max())
            upper, lower = grid[2 * number], grid[2 * number + 1]
            for axes, text in ((upper[0], f"{name}\nA{chosen + 1}"), (lower[0], f"{name}\nW")):
                axes.text(-0.12, 0.5, text, transform=axes.transAxes, ha="right", va="center", fontsize=8)
            for above, below, layers in zip(upper, lower, epochs.values(), strict=True):
                there = layers[name]
                values = _centred(there)[chosen]
                _show(above, values, f"SD {values.std():.3f}", cmap=_DIVERGING, vmin=-scale, vmax=scale)
                text = f"{100 * there.spread():.1f} %"
                _show(below, there.deviations[there.parts], text, cmap=_SEQUENTIAL, vmin=0, vmax=limit)
    return figure


def _affinity(row: Sequence[Axes], layer: LayerKernels) -> None:
    if layer.affinity is None:
        return
    differences = _centred(layer)
    scale = _scale(np.abs(differences).max())
    for axes, values, own in zip(row, differences, layer.affinity, strict=False):
        _show(axes, values, f"{own.mean():.2f} ± {own.std():.3f}", cmap=_DIVERGING, vmin=-scale, vmax=scale)


def _centred(layer: LayerKernels) -> Any:
    """The affinity maps (c_A, h, w) without their means over positions."""
    assert layer.affinity is not None
    return layer.affinity - layer.affinity.mean((1, 2), keepdims=True)


def _scale(largest: float) -> float:
    """The end of a scale: what is 0 but for rounding is drawn as 0."""
    return max(float(largest), _ROUNDING)


def _show(axes: Axes, values: Any, text: str, **how: Any) -> Any:
    """A map (h, w) with a text below."""
    axes.text(0.5, -0.04, text, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return axes.imshow(values, interpolation="nearest", **how)
