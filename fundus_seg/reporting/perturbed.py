"""Scores of moved photographs: how they change with the strength of the map, as a table and as curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from fundus_seg.builtins import Perturbation
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.perturbation import MEANINGS, Perturbed, identity_of
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.frames import captions_of, case_values, labelled
from fundus_seg.reporting.notes import label_notes, patients_note, protocol_note, recipe_notes, table_title
from fundus_seg.reporting.table import Report, Table, difference_text
from fundus_seg.reporting.tables import cell_numbers, cell_text
from fundus_seg.statistics.patients import case_scores, patients_interval
from fundus_seg.viz.curves import draw_curves
from fundus_seg.viz.style import save

_LABELS = ("metric", "structure", "unseen", "column", "value")
_VERBS: dict[Perturbation, str] = {
    "rotate": "Rotated",
    "shear": "Sheared",
    "scale": "Scaled",
    "translate": "Translated",
}


def perturbed_reports(perturbed: Perturbed, metrics: Sequence[str] = DEFAULT_METRICS) -> list[Report]:
    """Scores by strength, of patients, then of the phantom.

    The frame has a row for each metric, structure, unseen domain, column and strength: perturbation, metric, unit,
    structure, holdout, COLUMN_FIELDS, strength; mean, sd, runs, and the ends low and high of the 95 % interval of the
    mean; change, the paired difference from the photographs as they are, with change_low and change_high; over, what
    was resampled for the intervals.

    Args:
        perturbed: the scores.
        metrics: keys of `METRICS`.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
        UsageError: an unknown metric.
    """
    check_metrics(metrics)
    return [_report(perturbed.kind, by_strength, metrics) for by_strength in _kinds(perturbed)]


def write_perturbed_plots(perturbed: Perturbed, folder: Path, metrics: Sequence[str] = DEFAULT_METRICS) -> list[Path]:
    """Write `perturb-<map>-<metric>`, the curves of each metric, as PNG and SVG; those of the phantom are named so.

    Arguments and errors are those of `perturbed_reports`; and RunError if the folder cannot be written.
    """
    check_metrics(metrics)
    written = []
    for by_strength in _kinds(perturbed):
        plain = by_strength[identity_of(perturbed.kind)]
        frame = labelled(_frame(perturbed.kind, by_strength, metrics), captions_of(plain))
        points = frame.rename(
            columns={"structure": "row", "holdout": "panel", "column": "line", "strength": "x", "mean": "y"}
        )
        prefix = "phantom-" if plain[0].meta.phantom else ""
        title = f"{table_title(f'{_VERBS[perturbed.kind]} photographs', plain)}; band: 95 % interval"
        for metric in metrics:
            figure = draw_curves(
                points[points["metric"] == metric],
                rows={structure: f"{structure}: {METRICS[metric].heading}" for structure in STRUCTURES},
                panel="unseen",
                across=f"{perturbed.kind}: {MEANINGS[perturbed.kind].partition(',')[0]}",
                title=title,
            )
            written += save(figure, folder / f"{prefix}perturb-{perturbed.kind}-{metric}")
    return written


def _kinds(perturbed: Perturbed) -> list[dict[float, list[Evaluation]]]:
    """The evaluations by strength, of patients and of the phantom, as far as there are any."""
    every = perturbed.evaluations.items()
    kinds = [
        {strength: [each for each in own if each.meta.phantom is phantom] for strength, own in every}
        for phantom in (False, True)
    ]
    return [kind for kind in kinds if all(kind.values())]


def _frame(
    kind: Perturbation, by_strength: Mapping[float, Sequence[Evaluation]], metrics: Sequence[str]
) -> pd.DataFrame:
    names = captions_of(by_strength[identity_of(kind)])
    cells: dict[tuple[Any, ...], pd.DataFrame] = {
        (strength, *where): cell
        for strength, own in by_strength.items()
        for where, cell in labelled(case_values(own), names).groupby(["structure", "holdout", "column"], sort=False)
    }
    holdouts = sorted({holdout for _, _, holdout, _ in cells})
    rows: list[dict[str, Any]] = []
    for metric, structure, holdout, column in product(metrics, STRUCTURES, holdouts, names):
        where = (structure, holdout, names[column])
        if (identity_of(kind), *where) not in cells:
            continue
        identity = {"perturbation": kind, "metric": metric, "unit": METRICS[metric].unit, "structure": structure}
        identity |= {"holdout": holdout, **asdict(column)}
        for strength in by_strength:
            cell, plain = cells[strength, *where], cells[identity_of(kind), *where]
            means = cell.groupby("seed")[metric].mean()
            numbers, over = cell_numbers(cell, means, metric, METRICS[metric].bounds)
            rows.append({**identity, "strength": strength, **numbers, **_change(cell, plain, metric), "over": over})
    return pd.DataFrame(rows)


def _change(cell: pd.DataFrame, plain: pd.DataFrame, metric: str) -> dict[str, float]:
    """The mean difference between the scores of moved photographs and of the same as they are, with its interval."""
    differences = case_scores(cell, metric) - case_scores(plain, metric)
    differences = differences.dropna(how="all").dropna(axis="columns")
    if not differences.size:
        return dict.fromkeys(("change", "change_low", "change_high"), math.nan)
    interval = patients_interval(differences)
    change = float(differences.to_numpy().mean())
    return {"change": change, "change_low": interval.low, "change_high": interval.high}


def _report(kind: Perturbation, by_strength: Mapping[float, Sequence[Evaluation]], metrics: Sequence[str]) -> Report:
    plain = by_strength[identity_of(kind)]
    names = captions_of(plain)
    frame = _frame(kind, by_strength, metrics)
    rows = []
    for place, own in labelled(frame, names).groupby(["metric", "structure", "holdout", "column"], sort=False):
        metric, structure, holdout, name = map(str, place)
        column = next(column for column, caption in names.items() if caption == name)
        labels = (METRICS[metric].heading, structure, holdout, name)
        cells = own.to_dict("records")
        rows.append((*labels, "score", *(cell_text(column, cell) for cell in cells)))
        changes = (difference_text(cell["change"], cell["change_low"], cell["change_high"]) for cell in cells)
        rows.append((*labels, "change", *changes))
    notes = (
        f"strength: {MEANINGS[kind]}; photograph and true masks are moved by one map about the middle of the frame, at "
        "their own size: the photograph bilinear with a reflected border, the masks by the nearest pixel",
        "score: as in tables of scores; change: from the photographs as they are, of the same runs and cases, with its "
        "95 % interval",
        *_lost_notes(kind, by_strength),
        *label_notes(plain),
        *recipe_notes(each.meta.column for each in plain),
        patients_note(plain),
        protocol_note(plain[0].meta.protocol),
    )
    title = table_title(f"{_VERBS[kind]} photographs of unseen domains", plain)
    columns = tuple(_strength_text(kind, strength) for strength in by_strength)
    return Report(frame, Table(title, _LABELS, columns, tuple(rows), notes))


def _strength_text(kind: Perturbation, strength: float) -> str:
    if kind == "scale":
        return f"x {strength:g}"
    number, unit = (100 * strength, " %") if kind == "translate" else (strength, "°")
    return f"{number:+g}{unit}" if number else f"0{unit}"


def _lost_notes(kind: Perturbation, by_strength: Mapping[float, Sequence[Evaluation]]) -> list[str]:
    """A line that says how many true masks a strength has moved out of the frame, which are then in no score."""
    counts = []
    plain = _told(by_strength[identity_of(kind)])
    for strength, own in by_strength.items():
        if lost := len(plain - _told(own)):
            counts.append(f"{lost} at {_strength_text(kind, strength)}")
    return [f"true masks moved out of the frame, in no score there: {', '.join(counts)}"] if counts else []


def _told(evaluations: Sequence[Evaluation]) -> set[tuple[str, str, str]]:
    """The domain, case and structure of each true mask that is not empty."""
    rows = pd.concat([each.cases[each.cases["truth_pixels"] > 0] for each in evaluations])
    return set(zip(rows["domain"], rows["case"], rows["structure"], strict=True))
