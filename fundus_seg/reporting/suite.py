"""The table that a suite ends in: a row per column of the experiment, with its scores beside what its network costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.floors import floors_of
from fundus_seg.reporting.frames import captions_of, case_values, labelled
from fundus_seg.reporting.notes import counts_and_protocol
from fundus_seg.reporting.profile_table import cost_notes, cost_texts
from fundus_seg.reporting.table import Report, Table, difference_text, mean_interval_text
from fundus_seg.reporting.tables import overall, title_of
from fundus_seg.runs.identity import COLUMN_FIELDS, NO_NETWORK, Column
from fundus_seg.statistics.comparison import paired_scores
from fundus_seg.statistics.intervals import MINIMAL_RUNS, Interval
from fundus_seg.statistics.patients import case_scores, patients_interval
from fundus_seg.viz.style import save
from fundus_seg.viz.trade_off import draw_trade_off

_METRICS = ("dsc", "hd95")
_GAINED = "dsc"
"""The metric whose difference from the reference is given."""
_ACROSS = {
    "macs": ("MACs for each photograph [M]", 1e-6),
    "throughput": ("photographs in a second", 1.0),
    "peak_memory_bytes": ("peak memory [MiB]", 2**-20),
}
"""What scores are drawn against: its label, and the factor that gives it its unit."""


def suite_table(evaluations: Sequence[Evaluation], costs: pd.DataFrame, *, reference: str | None = None) -> Report:
    """Scores on the unseen domains, each domain of the same weight, and costs of inference.

    The frame has a row for each column, in the order of `costs` behind the floor: column, COLUMN_FIELDS, runs (of each
    unseen domain, at least); for each metric and structure its mean and the 95 % interval of it, as `dsc_disc`,
    `dsc_disc_low` and `dsc_disc_high`; the paired difference in DSC from the reference, as `gain_disc` with its
    interval; and the columns of `costs`. NaN stands where a run or a number is missing.

    Args:
        evaluations: at least one, of patients or of the phantom alone.
        costs: as `fundus_seg.experiments.costs.measure_costs` gives them: a row for each column of the experiment.
        reference: the label in `costs` of the column that the others are compared with.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    floors = floors_of(evaluations)
    shown = [*floors.shown, *evaluations]
    captions = captions_of(shown)
    cases = labelled(case_values(shown), captions)
    compared = _caption(costs, captions, reference)
    rows, unpaired = [], dict[str, None]()
    for column, caption, cost in _columns(costs, captions):
        own = cases[cases["column"] == caption]
        numbers = _scores(own, cases)
        if compared and caption != compared and not (column and column.no_network):
            gains, lines = _gains(cases, caption, compared)
            numbers |= gains
            unpaired |= dict.fromkeys(lines)
        identity = asdict(column) if column else dict.fromkeys(COLUMN_FIELDS)
        rows.append({"column": caption, **identity, **numbers, **cost})
    frame = pd.DataFrame(rows)
    notes = (
        *_score_notes(cases, compared),
        *unpaired,
        *floors.notes,
        *floors.ceiling_notes,
        *cost_notes(costs),
        _throughput_note(costs),
        *counts_and_protocol(shown, cases, _METRICS),
    )
    return Report(
        frame, _layout(frame, costs, compared, title_of(evaluations, "Scores and costs, unseen domains"), notes)
    )


def write_trade_offs(report: Report, folder: Path, *, phantom: bool) -> list[Path]:
    """Draw the DSC of a `suite_table` against MACs, throughput and memory, as `trade-off.png` and `trade-off.svg`.

    Args:
        report: what `suite_table` gives.
        folder: where the files are written.
        phantom: whether the scores are of the phantom, which the files' names then say.

    Raises:
        RunError: they cannot be written.
    """
    points = [
        {"name": row["column"], "row": structure, "panel": across, "x": factor * row[across]}
        | {end: row[f"dsc_{structure}{suffix}"] for end, suffix in (("y", ""), ("low", "_low"), ("high", "_high"))}
        for row in report.frame.dropna(subset=["macs"]).to_dict("records")
        for structure, (across, (_, factor)) in product(STRUCTURES, _ACROSS.items())
    ]
    machine = str(report.frame["machine"].dropna().iloc[0])
    figure = draw_trade_off(
        pd.DataFrame(points),
        rows={structure: f"{structure}: {METRICS['dsc'].heading}" for structure in STRUCTURES},
        panels={across: label for across, (label, _) in _ACROSS.items()},
        title=f"{report.layout.title}; bars: 95 % intervals; {machine}",
    )
    return save(figure, folder / f"{'phantom-' if phantom else ''}trade-off")


def _caption(costs: pd.DataFrame, captions: Mapping[Column, str], label: str | None) -> str | None:
    """What the table calls the column that a suite labels so."""
    names = set(costs.loc[costs["column"] == label, "name"])
    return next((caption for column, caption in captions.items() if column.name in names), None)


def _columns(costs: pd.DataFrame, captions: Mapping[Column, str]) -> list[tuple[Column | None, str, dict[str, Any]]]:
    """The columns of the table with their captions and costs: what is no network, then all that the experiment has."""
    own = {column.name: column for column in captions if not column.no_network}
    beside = [(column, caption, dict[str, Any]()) for column, caption in captions.items() if column.no_network]
    found: list[tuple[Column | None, str, dict[str, Any]]] = [*beside]
    for cost in costs.to_dict("records"):
        column = own.get(str(cost.pop("name")))
        label = str(cost.pop("column"))
        found.append((column, captions[column] if column else label, {str(key): value for key, value in cost.items()}))
    return found


def _scores(own: pd.DataFrame, cases: pd.DataFrame) -> dict[str, float]:
    """Runs, and the mean of each metric and structure with its interval; NaN where a cell of the table is missing."""
    holdouts = sorted(cases["holdout"].unique())
    seeds = own.groupby("holdout")["seed"].nunique().reindex(holdouts, fill_value=0)
    numbers: dict[str, float] = {"runs": int(seeds.min())}
    for metric, structure in product(_METRICS, STRUCTURES):
        there = cases[cases["structure"] == structure]
        told = [each for each in holdouts if not there.loc[there["holdout"] == each, "not_annotated"].all()]
        cells = [own[(own["structure"] == structure) & (own["holdout"] == each)] for each in told]
        whole = [case_scores(cell, metric).dropna(how="all").dropna(axis="columns") for cell in cells]
        if whole and all(each.size for each in whole):
            mean = overall([cell.groupby("seed")[metric].mean().mean() for cell in cells])
            interval = patients_interval(*whole).within(*METRICS[metric].bounds)
            numbers |= _triple(f"{metric}_{structure}", mean, interval)
        else:
            numbers |= _triple(f"{metric}_{structure}")
    return numbers


def _triple(key: str, mean: float = math.nan, interval: Interval | None = None) -> dict[str, float]:
    """The columns of a number and of its interval's ends."""
    low, high = (interval.low, interval.high) if interval else (math.nan, math.nan)
    return {key: mean, f"{key}_low": low, f"{key}_high": high}


def _gains(cases: pd.DataFrame, caption: str, reference: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """The paired difference of each structure from the reference, and a line for each run without a partner."""
    both = cases[cases["column"].isin([caption, reference])]
    blocks, unpaired = paired_scores(both, caption, reference, _GAINED)
    numbers: dict[str, float] = {}
    for structure in STRUCTURES:
        own = [one - other for (which, _), (one, other) in blocks.items() if which == structure]
        if len(own) == cases["holdout"].nunique():
            mean = overall([each.to_numpy().mean() for each in own])
            numbers |= _triple(f"gain_{structure}", mean, patients_interval(*own))
    return numbers, unpaired


def _score_notes(cases: pd.DataFrame, compared: str | None) -> list[str]:
    holdouts = ", ".join(sorted(cases["holdout"].unique()))
    notes = [
        f"scores: mean over the unseen domains {holdouts} of each run's mean over cases, in brackets its 95 % interval "
        f"over runs and cases; of fewer than {MINIMAL_RUNS} runs over cases alone, which says nothing about other seeds"
    ]
    if compared:
        notes.append(f"against {compared}: difference in {METRICS[_GAINED].heading}, paired by seed and case")
    return notes


def _throughput_note(costs: pd.DataFrame) -> str:
    shared = costs.iloc[0]
    batches, threads = (", ".join(str(shared[f"tried_{what}"]).split()) for what in ("batches", "threads"))
    return (
        f"photographs/s: the most of batches of {batches} and {threads} CPU threads; in brackets the batch and the "
        "threads"
    )


def _layout(frame: pd.DataFrame, costs: pd.DataFrame, compared: str | None, title: str, notes: Sequence[str]) -> Table:
    no_network = frame["preset"] == NO_NETWORK
    texts = {"runs": [*frame["runs"].astype(str).mask(no_network, "-")]}
    for metric, structure in product(_METRICS, STRUCTURES):
        cells = _triples(frame, f"{metric}_{structure}")
        heading = f"{structure} {METRICS[metric].heading}"
        texts[heading] = ["missing" if math.isnan(cell[0]) else mean_interval_text(*cell) for cell in cells]
    for structure in STRUCTURES if compared else ():
        cells = _triples(frame, f"gain_{structure}")
        heading = f"{structure}, against {compared}"
        texts[heading] = ["-" if math.isnan(cell[0]) else difference_text(*cell) for cell in cells]
    for heading, own in (cost_texts(costs) | {"photographs/s": _throughput_texts(costs)}).items():
        texts[heading] = ["-"] * int(no_network.sum()) + [*own]
    rows = tuple(zip(frame["column"], *texts.values(), strict=True))
    return Table(title, ("column",), tuple(texts), rows, tuple(notes))


def _triples(frame: pd.DataFrame, key: str) -> Iterator[tuple[float, float, float]]:
    """A number of each row with its interval's ends."""
    columns = frame.reindex(columns=[*_triple(key)])
    return columns.itertuples(index=False, name=None)


def _throughput_texts(costs: pd.DataFrame) -> pd.Series:
    """`31.5 (8 x 2)`: photographs in a second, the batch and the threads."""
    cells = zip(costs["throughput"], costs["best_batch"], costs["best_threads"], strict=True)
    return pd.Series([f"{speed:.1f} ({batch} x {threads})" for speed, batch, threads in cells])
