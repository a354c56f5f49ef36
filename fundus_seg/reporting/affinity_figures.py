"""Figures of what kernels learned of position, with captions that say what each shows, and the files of them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fundus_seg.reporting.affinity import Names, affinity_table, kinds
from fundus_seg.reporting.notes import PHANTOM_HEADING, captions
from fundus_seg.reporting.table import render
from fundus_seg.runs.atomic import write_text
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import UNKNOWN, Column
from fundus_seg.runs.kernels import LayerKernels, RunKernels, snapshots
from fundus_seg.viz.affinity import draw_affinity, draw_epochs
from fundus_seg.viz.curves import draw_curves
from fundus_seg.viz.style import save

MOST_ROWS = 18
"""Rows of a figure; of more operators, the first are drawn."""
_MOST_EPOCHS = 9
_CURVES = {
    "affinity": "A: SD over positions",
    "affines": "affines: rms from mean",
    "spread": "spread [%]",
    "affinity removed": "spread without A [%]",
}
_MAPS = (
    "A1, A2, ...: affinity maps, drawn as the difference from their mean over positions, red above and blue below, in"
    " one scale for a row; below, their mean ± SD over positions."
)
_AFFINES = (
    "Affines: how far the scales and shifts of the generator's layer norms are from their means over positions, rms "
    "over norms and channels, the darker the further; below, the rms over positions."
)
_KERNELS = (
    "W as learned: deviation d of the kernels, the rms over channels and taps of their difference from the mean "
    "kernel, as a share of the rms of all kernels, each map in a scale of its own from 0, dark blue, to its largest, "
    "yellow; below, the spread, which is the rms of d over positions, and in brackets the largest."
)
_PADDING = (
    "Without padding: with convolutions of the generator that pad by the nearest value. What is left without both "
    "comes from zero padding, and such a pattern is there before any training; so neither the affinity maps nor W as "
    "learned alone show what was learned."
)
_EPOCHS = (
    "Upper rows: the affinity map that varies most after the last epoch shown, drawn as the difference from its mean "
    "over positions, red above and blue below; below, its SD over positions. Lower rows: deviation d of the kernels W"
    " from 0, dark blue; below, the spread. All epochs of a row are in the scale of the last. The maps alone do not "
    "tell what became of the kernels: position also enters by the norms' affines and by zero padding."
)
_NUMBERS = (
    "After each epoch that was kept: the SD of the affinity maps over positions (rms over maps); how far the norms' "
    "scales and shifts are from their means over positions (rms over norms, channels and positions); and the spread of"
    " the kernels, as learned and with each affinity map at its mean."
)


def affinity_figure(measured: Sequence[RunKernels], names: Names | None = None) -> tuple[Figure, str]:
    """The figure of one kind of photographs, after the paper's of its affinity maps, and its caption.

    Of each operator, the network of the first unseen domain and the lowest seed is drawn.

    Args:
        measured: as in `affinity_table`.
        names: as in `affinity_table`.
    """
    names = names or captions(each.column for each in measured)
    drawn = _drawn(measured)
    rows = _rows(drawn, [each.layers for each in drawn], names)
    shown = dict([*rows.items()][:MOST_ROWS])
    phantom = PHANTOM_HEADING if measured[0].phantom else ""
    caption = f"{phantom}{_caption(_which(drawn, names), [*shown.values()], len(rows))}"
    return draw_affinity(shown, title=f"{phantom}Affinity maps and generated kernels"), caption


def movement_figures(measured: Sequence[RunKernels]) -> Iterator[tuple[str, Figure, str]]:
    """Names, figures and captions of how the networks that `affinity_figure` draws moved in training.

    `epochs`: affinity maps and the deviation of the kernels after some of the epochs that all kept, of operators with
    affinity maps; absent where these networks kept no epoch in common.
    `curves`: numbers after every epoch, of all.

    Args:
        measured: as in `affinity_table`.

    Raises:
        RunError: nothing was kept of the epochs of one of these networks.
    """
    names = captions(each.column for each in measured)
    phantom = PHANTOM_HEADING if measured[0].phantom else ""
    kept = {each: snapshots(RunFolder(each.path)) for each in _drawn(measured)}
    mapped = [each for each in kept if any(layer.affinity is not None for layer in each.layers)]
    epochs = sorted(set.intersection(*(set(kept[each]) for each in mapped))) if mapped else []
    if epochs:
        chosen = [epochs[int(at)] for at in np.unique(np.linspace(0, len(epochs) - 1, _MOST_EPOCHS).round())]
        rows = {epoch: _rows(mapped, [kept[each][epoch] for each in mapped], names) for epoch in chosen}
        shown = {epoch: dict([*own.items()][: MOST_ROWS // 2]) for epoch, own in rows.items()}
        figure = draw_epochs(shown, title=f"{phantom}Affinity maps and kernels after epochs")
        yield "epochs", figure, f"{phantom}{_which(mapped, names)} {_EPOCHS}"
    points = pd.DataFrame(
        [
            {"row": key, "panel": names[each.column], "line": layer.name, "x": epoch, "y": value}
            for each, own in kept.items()
            for epoch, layers in own.items()
            for layer in layers
            for key, value in _moved(layer).items()
        ]
    ).assign(low=math.nan, high=math.nan)
    there = {key: label for key, label in _CURVES.items() if points.loc[points["row"] == key, "y"].notna().any()}
    figure = draw_curves(points, rows=there, panel="", across="epoch", title=f"{phantom}Position over training")
    yield "curves", figure, f"{phantom}{_which([*kept], names)} {_NUMBERS}"


def write_affinity(measured: Sequence[RunKernels], folder: Path, *, over_training: bool = False) -> list[Path]:
    """Write figures as PNG and SVG, numbers as CSV, captions with the table as Markdown; those of the phantom apart.

    `affinity`: the figure. `affinity.csv`: every number of every network. `affinity.md`: captions and table. With
    `over_training`, `affinity-epochs` and `affinity-curves` show the drawn networks after epochs.

    Args:
        measured: as `evaluation.measure_kernels` gives it.
        folder: where the files are written.
        over_training: whether to draw how affinity maps, affines and kernels moved.

    Raises:
        RunError: the folder cannot be written; or nothing was kept of a drawn network's epochs.
    """
    written = []
    for kind in kinds(measured):
        stem = f"{'phantom-' if kind[0].phantom else ''}affinity"
        figures = [(stem, *affinity_figure(kind))]
        if over_training:
            figures += [(f"{stem}-{name}", figure, caption) for name, figure, caption in movement_figures(kind)]
        for name, figure, _ in figures:
            written += save(figure, folder / name)
        report = affinity_table(kind)
        shown = [f"![{name}]({name}.png)\n\n{caption}\n" for name, _, caption in figures]
        for suffix, text in ((".csv", render(report, "csv")), (".md", "\n".join([*shown, str(report)]))):
            written.append(folder / f"{stem}{suffix}")
            write_text(written[-1], text)
    return written


def _drawn(measured: Sequence[RunKernels]) -> list[RunKernels]:
    """One network of each column: of the first unseen domain, the lowest seed."""
    ordered = sorted(measured, key=lambda each: (each.column, each.holdout, each.seed))
    firsts: dict[Column, RunKernels] = {}
    for each in ordered:
        firsts.setdefault(each.column, each)
    return [*firsts.values()]


def _rows(
    networks: Sequence[RunKernels], layers: Sequence[Sequence[LayerKernels]], names: Names
) -> dict[str, LayerKernels]:
    """The layers of each network, as they are or were, by the names of the rows of a figure."""
    return {
        f"{names[network.column]}\n{layer.name}": layer
        for network, own in zip(networks, layers, strict=True)
        for layer in own
    }


def _which(drawn: Sequence[RunKernels], names: Names) -> str:
    """Which networks a figure is of."""
    texts = []
    for each in drawn:
        run = each.path.name if each.holdout == UNKNOWN else f"unseen {each.holdout}, seed {each.seed}"
        texts.append(f"{names[each.column]} ({run}, checkpoint {each.checkpoint})")
    return f"Drawn: {'; '.join(texts)}."


def _caption(which: str, layers: Sequence[LayerKernels], rows: int) -> str:
    """What the figure shows, with a sentence for each kind of panel that is there."""
    parts = {part for layer in layers for part in layer.parts}
    sentences = [
        f"What operators with a kernel for each position learned; a row for each place in the network. {which}",
        *[_MAPS] * ("affinity" in parts),
        *[_AFFINES] * ("affines" in parts),
        _KERNELS,
        *["W without A: the same with each affinity map at its mean over positions."] * ("affinity" in parts),
        *["Without affines: with these at their mean; without both: with both."] * ({"affinity", "affines"} <= parts),
        *[_PADDING] * ("padding" in parts),
        *[f"The first {len(layers)} of {rows} places are drawn; the table has all."] * (rows > len(layers)),
    ]
    return " ".join(sentences)


def _moved(layer: LayerKernels) -> dict[str, float]:
    """The quantities of `_CURVES` of one operator after an epoch; NaN where it has no such part."""
    maps, affines = layer.affinity, layer.affines
    without = tuple(part for part in layer.parts if part != "affinity")
    return {
        "affinity": math.nan if maps is None else float(np.sqrt(maps.var((1, 2)).mean())),
        "affines": math.nan if affines is None else float(np.sqrt(np.square(affines).mean())),
        "spread": 100 * layer.spread(),
        "affinity removed": math.nan if maps is None else 100 * layer.spread(without),
    }
