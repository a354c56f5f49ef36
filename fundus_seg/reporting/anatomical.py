"""Scores of masks as they are predicted, and as `Scoring.anatomical` makes them, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.frames import captions_of, labelled
from fundus_seg.reporting.notes import patients_note, protocol_note, table_title
from fundus_seg.reporting.table import Report, Table, mean_sd_text
from fundus_seg.statistics.intervals import mean_sd

_LABELS = {"without": "as predicted", "with": "anatomical", "difference": "difference"}


def anatomical_table(
    pairs: Sequence[tuple[Evaluation, Evaluation]], metrics: Sequence[str] = DEFAULT_METRICS
) -> Report:
    """The scores without and with anatomical masks and their difference, mean ± SD over runs.

    The frame has a row for each run, metric and structure: COLUMN_FIELDS, holdout, seed, metric, structure, without,
    with, and difference: with minus without, each a mean over cases.

    Args:
        pairs: for each run and checkpoint the scores on its holdout without and with it; at least one.
        metrics: keys of `METRICS`.

    Raises:
        ProtocolError: the two of a pair are not those of one checkpoint, or differ in more than this.
        UsageError: an unknown metric.
    """
    check_metrics(metrics)
    rows = [row for pair in pairs for row in _rows(*pair, metrics)]
    names = captions_of([plain for plain, _ in pairs])
    frame = pd.DataFrame(rows)
    cells = {
        where: cell for where, cell in labelled(frame, names).groupby(["metric", "structure", "holdout", "column"])
    }
    lines = []
    for metric in metrics:
        for structure in STRUCTURES:
            for holdout in sorted(frame["holdout"].unique()):
                own = [cells.get((metric, structure, holdout, name), frame[:0]) for name in names.values()]
                for score, label in _LABELS.items():
                    texts = (mean_sd_text(*mean_sd(cell[score])) for cell in own)
                    lines.append((METRICS[metric].heading, structure, holdout, label, *texts))
    plain = [each for each, _ in pairs]
    notes = (
        "anatomical: cup in disc, each in one piece, without holes, within a smooth closed outline; difference: "
        "anatomical minus as predicted, of the same runs; ± SD over runs",
        patients_note(plain),
        protocol_note(plain[0].meta.protocol),
    )
    title = table_title("Anatomical masks", plain)
    layout = Table(title, ("metric", "structure", "unseen", "masks"), tuple(names.values()), tuple(lines), notes)
    return Report(frame, layout)


def _rows(plain: Evaluation, made: Evaluation, metrics: Sequence[str]) -> list[dict[str, object]]:
    """The rows of the frame of one pair."""
    own = {"checkpoint_sha256", "run", "scored", "data"}
    alike = plain.meta.protocol.model_copy(update={"anatomical": True}) == made.meta.protocol
    if not alike or plain.meta.model_dump(include=own) != made.meta.model_dump(include=own):
        raise ProtocolError(f"{made.path}: not the anatomical scores of {plain.path}; evaluate the run again")
    run = {**asdict(plain.meta.column), "holdout": plain.meta.run.holdout, "seed": plain.meta.run.seed}
    before, after = (
        scored_values(each).groupby("structure")[list(metrics)].mean().to_dict("index") for each in (plain, made)
    )
    rows: list[dict[str, object]] = []
    for metric in metrics:
        for structure in STRUCTURES:
            without, made_so = (float(means[structure][metric]) for means in (before, after))
            scores = {"without": without, "with": made_so, "difference": made_so - without}
            rows.append({**run, "metric": metric, "structure": structure, **scores})
    return rows
