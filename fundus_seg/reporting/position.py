"""When position pays: the gain over depthwise beside how well the training crops are aligned, as table and plot."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from fundus_seg.errors import UsageError
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.variance import FeatureVariances
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.frames import captions_of, case_values, labelled
from fundus_seg.reporting.notes import counts_and_protocol, table_title
from fundus_seg.reporting.table import Report, Table, difference_text, mean_sd_text
from fundus_seg.reporting.tables import overall
from fundus_seg.statistics.comparison import paired_scores
from fundus_seg.statistics.patients import patients_interval
from fundus_seg.viz.curves import draw_curves
from fundus_seg.viz.style import save

REFERENCE = "depthwise"
"""The operator that the others are compared with: the same block, but for one kernel at all positions."""
_METRIC = "dsc"
_ALL = "all"
_Place = tuple[str, float, str, str]
"""Operator, shift, structure and unseen domain."""


def position_table(runs: Sequence[GridRun], evaluations: Sequence[Evaluation], variances: FeatureVariances) -> Report:
    """The gain in DSC of each operator over `REFERENCE`, by the `train.shift` that both were trained with.

    The frame has a row for each operator, structure, unseen domain (`all`: over all of them) and shift: operator,
    structure, holdout, shift; ratio, that of cross-image to intra-image variance in the deepest stage of the encoder,
    a mean over the source domains; gain, paired by seed and case, with the ends of its 95 % interval, gain_low and
    gain_high; change, the paired difference from the gain without a shift, with change_low and change_high; over, what
    was resampled. NaN stands where a run is missing, or the variance of a domain.

    Args:
        runs: those of the experiment.
        evaluations: the scores of those that are done, of patients or of the phantom alone.
        variances: of the training photographs, with the shifts of the runs.

    Raises:
        UsageError: there is no gain to give: no operator beside `REFERENCE` that shares with it a shift and none, or
            several columns of one operator and one shift.
        ProtocolError: evaluations that must not stand in one table.
    """
    columns = _by_setup(runs)
    compared = _compared(columns)
    captions = captions_of(evaluations)
    cases = labelled(case_values(evaluations), captions)
    caption_of = {column.name: caption for column, caption in captions.items()}
    setups = {setup: caption_of[name] for setup, name in columns.items() if name in caption_of}
    differences, unpaired = _differences(cases, setups)
    sources = {run.config.holdout: run.config.data.sources for run in runs}
    deepest = variances.rows[variances.rows["stage"] == variances.rows["stage"].max()]
    ratios = deepest.set_index(["domain", "shift"])["ratio"]
    rows = []
    for op, structure, place, shift in product(compared, STRUCTURES, (*sources, _ALL), sorted({s for _, s in columns})):
        if shift not in compared[op]:
            continue
        holdouts = list(sources) if place == _ALL else [place]
        ratio = overall(
            [overall([ratios.get((domain, shift), math.nan) for domain in sources[each]]) for each in holdouts]
        )
        moved = [differences.get((op, shift, structure, each)) for each in holdouts]
        plain = [differences.get((op, 0.0, structure, each)) for each in holdouts]
        row = {"operator": op, "structure": structure, "holdout": place, "shift": shift, "ratio": ratio}
        rows.append({**row, **_numbers("gain", moved), **_numbers("change", _changes(moved, plain))})
    notes = (
        f"gain: difference in {METRICS[_METRIC].heading} from {REFERENCE} trained with the same shift, paired by seed "
        "and case, with its 95 % interval; change: of the gain, from that without a shift, paired likewise",
        "shift: each training case is moved in each step by a random share of its side, up to this one for each axis; "
        "test photographs are as they are",
        "ratio: variance of features at one position across the source domains' training photographs, each moved once "
        f"by such a shift, / within a photograph; encoder {variances.encoder}, weights {variances.weights}, at "
        f"{variances.size}x{variances.size}, deepest stage; `fundus-seg data variance` shows all stages",
        *unpaired,
        *counts_and_protocol(evaluations, cases, [_METRIC]),
    )
    frame = pd.DataFrame(rows)
    return Report(frame, _layout(frame, table_title("When position pays: gain and alignment", evaluations), notes))


def write_position_plot(report: Report, folder: Path, *, phantom: bool) -> list[Path]:
    """Draw gain against ratio by unseen domain, as `position.png` and `position.svg`.

    Raises:
        RunError: they cannot be written.
    """
    points = report.frame.rename(
        columns={"structure": "row", "holdout": "panel", "ratio": "x", "gain": "y", "gain_low": "low"}
    ).rename(columns={"gain_high": "high"})
    points = points.assign(line=points["operator"] + f" - {REFERENCE}")
    figure = draw_curves(
        points,
        rows={structure: f"{structure}: gain in {METRICS[_METRIC].heading}" for structure in STRUCTURES},
        panel="unseen",
        across="cross / intra variance",
        title=f"{report.layout.title}; band: 95 % interval",
    )
    return save(figure, folder / f"{'phantom-' if phantom else ''}position")


def _by_setup(runs: Sequence[GridRun]) -> dict[tuple[str, float], str]:
    """The operator and recipe of each column, by operator and shift."""
    found: dict[tuple[str, float], str] = {}
    for run in runs:
        if found.setdefault((run.config.operator, run.config.train.shift), run.operator) != run.operator:
            raise UsageError(
                f"several columns have operator {run.config.operator} and train.shift {run.config.train.shift}; leave "
                "one of them"
            )
    return found


def _compared(columns: Collection[tuple[str, float]]) -> dict[str, set[float]]:
    """The shifts of each operator that has a gain at them, and one without a shift to compare it with."""
    found: dict[str, set[float]] = {}
    for op, shift in columns:
        if op != REFERENCE and (REFERENCE, shift) in columns:
            found.setdefault(op, set()).add(shift)
    found = {op: shifts for op, shifts in found.items() if 0.0 in shifts and len(shifts) > 1}
    if not found:
        raise UsageError(
            f"it needs {REFERENCE} and another operator, each in a column without train.shift, and both "
            "with one and the same"
        )
    return found


def _differences(
    cases: pd.DataFrame, setups: Mapping[tuple[str, float], str]
) -> tuple[dict[_Place, pd.DataFrame], list[str]]:
    """Paired differences from the reference, seed x case, and a line for all without a partner."""
    found: dict[_Place, pd.DataFrame] = {}
    lines: dict[str, None] = {}
    for (op, shift), caption in setups.items():
        reference = setups.get((REFERENCE, shift))
        if op != REFERENCE and reference:
            both = cases[cases["column"].isin([caption, reference])]
            blocks, unpaired = paired_scores(both, caption, reference, _METRIC)
            found |= {(op, shift, *place): one - other for place, (one, other) in blocks.items()}
            lines |= dict.fromkeys(unpaired)
    return found, [*lines]


def _changes(moved: Sequence[pd.DataFrame | None], plain: Sequence[pd.DataFrame | None]) -> list[pd.DataFrame | None]:
    """The differences less those without a shift, of seeds and cases that both have."""
    both = zip(moved, plain, strict=True)
    changes = [None if one is None or other is None else (one - other) for one, other in both]
    return [None if each is None else each.dropna(how="all").dropna(axis="columns") for each in changes]


def _numbers(name: str, frames: Sequence[pd.DataFrame | None]) -> dict[str, Any]:
    """The mean over unseen domains and its interval; NaN where one of them is missing."""
    there = [each for each in frames if each is not None and each.size]
    if len(there) < len(frames):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    interval = patients_interval(*there)
    mean = overall([float(each.to_numpy().mean()) for each in there])
    return {name: mean, f"{name}_low": interval.low, f"{name}_high": interval.high, "over": interval.over}


def _layout(frame: pd.DataFrame, title: str, notes: Sequence[str]) -> Table:
    rows = tuple(
        (
            f"{row['operator']} - {REFERENCE}",
            str(row["structure"]),
            str(row["holdout"]),
            f"{100 * row['shift']:g} %",
            mean_sd_text(row["ratio"]),
            difference_text(row["gain"], row["gain_low"], row["gain_high"]),
            "-" if not row["shift"] else difference_text(row["change"], row["change_low"], row["change_high"]),
        )
        for row in frame.to_dict("records")
    )
    return Table(title, ("gain of", "structure", "unseen", "shift"), ("ratio", "gain", "change"), rows, tuple(notes))
