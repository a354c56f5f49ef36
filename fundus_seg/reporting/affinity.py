"""Report of what kernels learned of position: the table of spreads, and what remains of them without each part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from fundus_seg.errors import counted
from fundus_seg.reporting.notes import PHANTOM_HEADING, captions
from fundus_seg.reporting.table import Report, Table, mean_sd_text
from fundus_seg.runs.identity import Column
from fundus_seg.runs.kernels import LayerKernels, Parts, RunKernels, subsets

Names = Mapping[Column, str]
"""The captions of columns."""
_PART_NAMES = {"affinity": "A", "affines": "affines", "padding": "padding"}
_SPREAD = (
    "spread: at each position, the rms over channels and taps of the kernel's difference from the mean kernel, as a "
    "share of the rms of all kernels; then the rms over positions. 0 % is a depthwise convolution, and 100 % a mean "
    "kernel of zero"
)
_WITHOUT = (
    "without A or affines: each affinity map, and each channel's scale and shift in the generator's layer norms, at "
    "its mean over positions; without padding: the generator's convolutions pad by the nearest value, not by zeros"
)
_SHARES = (
    "share: the Shapley value of a part in spread², the mean of what it adds over all orders; position enters by all "
    "three, and the padding's part is there before any training"
)


def affinity_reports(measured: Sequence[RunKernels]) -> Iterator[Report]:
    """The table of the networks of patients, then that of the phantom's; a kind without any has none."""
    for kind in kinds(measured):
        yield affinity_table(kind)


def kinds(measured: Sequence[RunKernels]) -> list[list[RunKernels]]:
    """The networks of patients, then those of the phantom; a kind without any is left out."""
    found = [[each for each in measured if each.phantom is phantom] for phantom in (False, True)]
    return [kind for kind in found if kind]


def affinity_table(measured: Sequence[RunKernels], names: Names | None = None) -> Report:
    """Spreads of the kernels and what remains without each part by which position enters, mean ± SD over networks.

    The frame has a row for each network, layer, quantity (`spread` or `share`) and parts: those that keep their
    position, joined by `+`, and for a share the part itself. Spreads are in [0, 1]; shares sum to the spread² as
    learned.

    Args:
        measured: as `evaluation.measure_kernels` gives it, of one kind of photographs.
        names: captions of the columns; None for those that tell these networks apart.
    """
    names = names or captions(each.column for each in measured)
    layers = tuple(dict.fromkeys(layer.name for each in measured for layer in each.layers))
    rows: list[tuple[str, ...]] = []
    networks = []
    for column in sorted({each.column for each in measured}):
        name, own = names[column], [each for each in measured if each.column == column]
        count = str(len(own))
        parts: Parts = max((layer.parts for each in own for layer in each.layers), key=len)
        for kept in subsets(parts):
            removed = ", ".join(_PART_NAMES[part] for part in parts if part not in kept)
            what = f"spread without {removed} [%]" if removed else "spread as learned [%]"
            rows.append((name, count, what, *(_spread_text(own, layer, kept) for layer in layers)))
        for part in parts if len(parts) > 1 else ():
            what = f"share of {_PART_NAMES[part]} [% of spread²]"
            rows.append((name, count, what, *(_share_text(own, layer, part) for layer in layers)))
        holdouts = ", ".join(sorted({each.holdout for each in own}))
        networks.append(f"{name} {counted(len(own), 'network')} (unseen {holdouts})")
    shares = any(what.startswith("share") for _, _, what, *_ in rows)
    notes = (_SPREAD, *((_WITHOUT, _SHARES) if shares else ()), f"mean ± SD over networks: {'; '.join(networks)}")
    checkpoints = ", ".join(sorted({each.checkpoint for each in measured}))
    phantom = PHANTOM_HEADING if measured[0].phantom else ""
    title = f"{phantom}How much kernels differ between positions, and by what; checkpoint {checkpoints}"
    frame = pd.DataFrame([row for each in measured for row in _rows(each)])
    return Report(frame, Table(title, ("operator", "networks", "what"), layers, tuple(rows), notes))


def _rows(measured: RunKernels) -> Iterator[dict[str, Any]]:
    """The rows of a network in the frame."""
    place = {**asdict(measured.column), "holdout": measured.holdout, "seed": measured.seed}
    for layer in measured.layers:
        own = {**place, "checkpoint": measured.checkpoint, "layer": layer.name}
        for kept in subsets(layer.parts):
            yield {**own, "quantity": "spread", "parts": "+".join(kept), "value": layer.spread(kept)}
        for part, share in layer.shares.items():
            yield {**own, "quantity": "share", "parts": part, "value": share}


def _spread_text(measured: Sequence[RunKernels], name: str, kept: Parts) -> str:
    return _text([100 * layer.spread(kept) for layer in _layers(measured, name) if kept in layer.deviations])


def _share_text(measured: Sequence[RunKernels], name: str, part: str) -> str:
    there = [layer for layer in _layers(measured, name) if part in layer.parts and layer.spread() > 0]
    return _text([100 * layer.shares[part] / layer.spread() ** 2 for layer in there])


def _layers(measured: Sequence[RunKernels], name: str) -> list[LayerKernels]:
    """What was measured of one place in each of the networks that have it."""
    return [layer for each in measured for layer in each.layers if layer.name == name]


def _text(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return mean_sd_text(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, 1)
