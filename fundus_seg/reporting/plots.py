"""From evaluations to the files of their plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fundus_seg.errors import RunError
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.clinical import case_ratios
from fundus_seg.reporting.frames import by_kind, captions_of, case_values, in_order, labelled
from fundus_seg.reporting.notes import selections_text
from fundus_seg.runs.epochs import read_epochs
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import Column
from fundus_seg.viz.agreement import draw_bland_altman
from fundus_seg.viz.plots import draw_boxes, draw_learning_curves
from fundus_seg.viz.style import save

_CURVES = {f"dice_{structure}": f"validation Dice, {structure} [%]" for structure in STRUCTURES}


def write_plots(
    evaluations: Sequence[Evaluation], folder: Path, metrics: Sequence[str] = DEFAULT_METRICS
) -> list[Path]:
    """Write every plot that the records allow, as PNG and SVG; plots of the phantom are separate, and named so.

    `boxes-<metric>`: every case, averaged over its runs, marked where one of them predicts nothing.
    `bland-altman-vcdr`: every case of every run, since an average over runs would narrow the limits.
    `learning-curves`: every epoch of the runs whose folders hold the evaluations.

    Args:
        evaluations: of patients, of the phantom, or of both.
        folder: where the files are written.
        metrics: keys of `METRICS`; each gets a box plot.

    Raises:
        ProtocolError: evaluations that must not stand in one plot.
        UsageError: an unknown metric.
        RunError: the folder cannot be written, or a run's metrics.csv cannot be read.
    """
    check_metrics(metrics)
    written = []
    for kind in by_kind(evaluations):
        prefix = "phantom-" if kind[0].meta.phantom else ""
        for name, figure in (*boxes(kind, metrics), *agreement(kind), *learning_curves(kind)):
            written += save(figure, folder / f"{prefix}{name}")
    return written


def boxes(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Iterator[tuple[str, Figure]]:
    """`boxes-<metric>` of each metric, by the names that `write_plots` gives to files, of one kind of photographs.

    Arguments and errors are those of `write_plots`.
    """
    cases = labelled(case_values(evaluations), captions_of(evaluations))
    for metric in metrics:
        shown = METRICS[metric]
        by_case = cases.groupby(["column", "structure", "holdout", "case"], sort=False)
        frame = by_case.agg(value=(metric, "mean"), penalised=("penalised", "any")).reset_index()
        runs = int(cases.groupby(["column", "holdout"])["seed"].nunique().max())
        title = _title(evaluations)
        yield f"boxes-{metric}", draw_boxes(frame, label=shown.heading, title=title, bounds=shown.bounds, runs=runs)


def agreement(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, Figure]]:
    """`bland-altman-vcdr` of one kind of photographs, unless no case has both ratios. Errors: as `write_plots`."""
    ratios = labelled(case_ratios(evaluations), captions_of(evaluations))
    ratios = ratios.rename(columns={"vcdr": "predicted", "vcdr_truth": "true"})
    if ratios[["predicted", "true"]].notna().all(axis="columns").any():
        title = f"{_title(evaluations)}; vertical cup-to-disc ratio"
        yield "bland-altman-vcdr", draw_bland_altman(ratios, title=title)


def learning_curves(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, Figure]]:
    """`learning-curves` of one kind of photographs, unless no run's epochs are there. Errors: as `write_plots`."""
    epochs = _epochs(evaluations, captions_of(evaluations))
    if not epochs.empty:
        curves = {"loss": "training loss"} | {curve: label for curve, label in _CURVES.items() if curve in epochs}
        title = f"{_phantom(evaluations)}Mean and range over runs"
        yield "learning-curves", draw_learning_curves(epochs, curves=curves, title=title)


def _title(evaluations: Sequence[Evaluation]) -> str:
    return f"{_phantom(evaluations)}Unseen domains, {selections_text(evaluations)}"


def _phantom(evaluations: Sequence[Evaluation]) -> str:
    return "PHANTOM, synthetic photographs. " if evaluations[0].meta.phantom else ""


def _epochs(evaluations: Sequence[Evaluation], names: Mapping[Column, str]) -> pd.DataFrame:
    """One row per run and epoch: column, holdout, epoch, loss (mean of both structures), dice_disc and dice_cup in %.

    Masks that another tool made have no epochs.
    """
    frames = []
    for evaluation in in_order(evaluations):
        metrics = RunFolder(evaluation.path.parents[1]).metrics
        if not metrics.exists():
            continue
        try:
            rows = pd.DataFrame(read_epochs(metrics))
            rows["loss"] = rows[[f"loss_{structure}" for structure in STRUCTURES]].mean(axis=1)
        except KeyError as error:
            raise RunError(f"{metrics}: cannot be read; the same `fundus-seg train` command writes it again") from error
        measured = [curve for curve in _CURVES if curve in rows]
        rows[measured] *= 100
        frames.append(rows.assign(column=names[evaluation.meta.column], holdout=evaluation.meta.run.holdout))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
