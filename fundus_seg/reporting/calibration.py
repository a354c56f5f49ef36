"""How well probabilities are calibrated, in-domain beside unseen domains, before and after temperature scaling."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from fundus_seg.errors import counted
from fundus_seg.evaluation.calibrated import CalibratedCases
from fundus_seg.protocol import NONE_UNSEEN
from fundus_seg.reporting.notes import PHANTOM_HEADING, captions, chosen_text, recipe_notes
from fundus_seg.reporting.table import Report, Table, mean_sd_text
from fundus_seg.statistics.calibration import BINS, Measured
from fundus_seg.statistics.intervals import mean_sd
from fundus_seg.viz.calibration import draw_reliability
from fundus_seg.viz.style import save

_MEASURES = {"ece": "ECE [%]", "brier": "Brier [%]", "nll": "NLL [0.01 nats]"}
_TIMES = ("before", "after")
_UNFIT = re.compile(r"[^\w.+=-]+")
"""What a caption may have and the name of a file should not."""
_NOTES = (
    f"ECE: |frequency - probability| in {BINS} bins of equal width of the structure's own probability, weighted by "
    "pixels; Brier: mean squared error of the probability; NLL: negative log-likelihood of a pixel",
    "over all pixels of the whole photograph at the training size, most of them background far from any border",
    "in-domain: the half of the source domains' test photographs that chose no checkpoint (`calibrate`), on which the "
    "temperatures were fitted; nothing is fitted on the unseen domain",
    "mean over runs, ± SD over runs",
    "masks do not change: predict applies the threshold of the scoring protocol to uncalibrated probabilities",
)


def calibration_reports(measured: Sequence[CalibratedCases]) -> list[Report]:
    """ECE, Brier score and NLL before and after calibration, of patients, then of the phantom.

    The frame has a row for each run, structure and group of cases: COLUMN_FIELDS, holdout, seed, structure, where,
    cases, temperature and each measure with `_before` and `_after`, as fractions. In the layout a row is the mean over
    runs, with the SD over runs.

    Args:
        measured: of any runs, as `calibrate` gives them; at least one.
    """
    kinds = [[each for each in measured if each.phantom is phantom] for phantom in (False, True)]
    return [_report(kind) for kind in kinds if kind]


def _report(measured: Sequence[CalibratedCases]) -> Report:
    names = captions(each.column for each in measured)
    frame = pd.DataFrame([_row(each) for each in measured])
    frame["column"] = [names[each.column] for each in measured]
    rows = []
    values = ["temperature", *(f"{measure}_{time}" for measure in _MEASURES for time in _TIMES)]
    frame["group"] = frame["where"] + " (" + frame["cases"].astype(str) + ")"
    for place, cell in frame.groupby(["column", "holdout", "structure", "group"], sort=False):
        scale = [1.0 if value == "temperature" else 100.0 for value in values]
        texts = (mean_sd_text(*mean_sd(factor * cell[value])) for value, factor in zip(values, scale, strict=True))
        rows.append((*map(str, place), *texts))
    heading = PHANTOM_HEADING if measured[0].phantom else ""
    counts = frame.groupby(["column", "holdout"])["seed"].nunique()
    least, most = int(counts.min()), int(counts.max())
    runs = counted(most, "run") if least == most else f"{least} to {counted(most, 'run')}"
    title = f"{heading}Calibration, {runs} per row, {chosen_text(names)}"
    notes = (*recipe_notes(names), *_NOTES)
    columns = ("temperature", *(f"{label} {time}" for label in _MEASURES.values() for time in _TIMES))
    labels = ("column", "unseen", "structure", "cases")
    return Report(frame.drop(columns=["column", "group"]), Table(title, labels, columns, tuple(rows), notes))


def _row(each: CalibratedCases) -> dict[str, object]:
    row = {**asdict(each.column), "holdout": each.holdout, "seed": each.seed, "structure": each.structure}
    row |= {"where": each.where, "cases": sum(each.domains.values()), "temperature": each.after.temperature}
    for time, own in zip(_TIMES, (each.before, each.after), strict=True):
        row |= {f"ece_{time}": own.reliability.error, f"brier_{time}": own.brier, f"nll_{time}": own.nll}
    return row


def write_reliability(measured: Sequence[CalibratedCases], folder: Path) -> list[Path]:
    """Write the reliability diagrams of each column, `reliability-<caption of the column>`, as PNG and SVG.

    Raises:
        RunError: the folder cannot be written.
    """
    written = []
    for phantom in (False, True):
        kind = [each for each in measured if each.phantom is phantom]
        for column, name in captions(each.column for each in kind).items():
            own = sorted((each for each in kind if each.column == column), key=lambda each: each.holdout)
            bins = pd.concat([_bins(each) for each in own], ignore_index=True)
            heading, prefix = ("PHANTOM, synthetic photographs. ", "phantom-") if phantom else ("", "")
            title = f"{heading}Reliability of {name}, all runs, {chosen_text([column])}"
            path = folder / f"{prefix}reliability-{_UNFIT.sub('-', name).strip('-')}"
            written += save(draw_reliability(bins, title=title), path)
    return written


def _bins(each: CalibratedCases) -> pd.DataFrame:
    """One row per bin that holds pixels, before and after calibration."""
    frames = []
    for time, own in zip(_TIMES, (each.before, each.after), strict=True):
        frames.append(_of_bins(own).assign(time=time))
    whole = pd.concat(frames, ignore_index=True)
    kept_out = "" if each.holdout == NONE_UNSEEN else f", {each.holdout} kept out"
    where = f"in-domain{kept_out}" if each.where == "in-domain" else f"unseen {each.holdout}"
    return whole.assign(structure=each.structure, where=where)


def _of_bins(own: Measured) -> pd.DataFrame:
    found = own.reliability
    bins = pd.DataFrame({"probability": found.probability, "frequency": found.frequency, "count": found.counts})
    return bins.rename_axis("bin").reset_index()
