"""The sections of scores: the table of unseen domains, comparisons, leak meter, in-domain scores."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pandas as pd

from fundus_seg.errors import ProtocolError, counted
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.reporting.compare import operators_table
from fundus_seg.reporting.frames import captions_of
from fundus_seg.reporting.in_domain import domain_gap_table, in_domain_table
from fundus_seg.reporting.leak import leak_table
from fundus_seg.reporting.page.asked import OPERATOR, Asked, captioned, heading, unseen
from fundus_seg.reporting.page.blocks import Block, LackingError, Shown, Text, grid, printed
from fundus_seg.reporting.page.results import Results
from fundus_seg.reporting.table import p_text
from fundus_seg.reporting.tables import score_table

_PLACE = (Shown("metric", "heading"), Shown("structure", "structure"), Shown("unseen", "holdout"))
_SCORES = (
    *_PLACE,
    OPERATOR,
    Shown("mean [95\u00a0% interval]", "mean", 2, "low", "high"),
    Shown("SD over runs", "sd", 2),
    Shown("runs", "runs", 0),
    Shown("resampled over", "over"),
    Shown("predictions alike (IoU)", "alike", 3),
    Shown("true masks alike (IoU)", "true_alike", 3),
)


def scores(results: Results, what: Asked) -> Iterator[Block]:
    """The table as `evaluate` prints it, then every cell of it with its interval."""
    evaluations = unseen(results)
    report = score_table(evaluations, what.metrics)
    yield printed(report)
    frame = captioned(report.frame, evaluations)
    yield grid(_with_heading(frame), _SCORES, f"{heading(results)}Every cell of the table above, with its interval")


_COMPARED = (
    *_PLACE[1:],
    Shown("first", "first"),
    Shown("second", "second"),
    Shown("mean of first", "first_mean", 2),
    Shown("mean of second", "second_mean", 2),
    Shown("difference [95\u00a0%]", "difference", 2, "low", "high", signed=True),
    Shown("p (Wilcoxon)", "p", 3, form=p_text),
    Shown("p (Holm)", "p_holm", 3, form=p_text),
    Shown("p over runs", "p_runs", 3, form=p_text),
    Shown("rank-biserial", "rank_biserial", 2, signed=True),
    Shown("runs", "runs", 0),
    Shown("cases", "cases", 0),
    Shown("detectable", "detectable", 2),
    Shown("runs needed for 1", "runs_needed", 0),
    Shown("floor", "floor", 2),
)


MOST_IN_PAIRS = 10
"""Columns of which every pair is compared; of more, all are compared with the first."""


def compared(results: Results, what: Asked) -> Iterator[Block]:
    """Pairs of columns by the first of the metrics, with tests."""
    evaluations = unseen(results)
    names = captions_of(evaluations)
    if len(names) < 2:
        raise LackingError(f"there is one operator alone, {', '.join(names.values())}, and nothing to compare it with")
    frames, lines, notes = [], [], dict[str, None]()
    metric, later_first = what.metrics[0], [*reversed(names)]
    pairs = [*combinations(later_first, 2)]
    if len(names) > MOST_IN_PAIRS:
        *others, reference = later_first
        pairs = [(column, reference) for column in others]
        lines.append(
            f"of {len(names)} columns each is compared with {names[reference]} alone; `fundus-seg compare --ops` "
            "compares any two"
        )
    for pair in pairs:
        first, second = (names[column] for column in pair)
        try:
            report = operators_table(evaluations, pair, metric=metric)
        except ProtocolError as error:
            lines.append(f"{first} and {second} are not compared: {error}")
            continue
        frames.append(report.frame.assign(first=first, second=second))
        notes |= dict.fromkeys(report.layout.notes)
    if not frames:
        raise LackingError("; ".join(lines))
    frame = pd.concat(frames, ignore_index=True)
    frame[["structure", "holdout"]] = frame[["structure", "holdout"]].astype(object).fillna("all")
    title = f"{heading(results)}{METRICS[metric].heading}, first minus second, by structure and unseen domain"
    yield grid(frame, _COMPARED, title, [*lines, *notes])


def leak(results: Results, what: Asked) -> Iterator[Block]:
    """What choosing checkpoints on the scored cases would seem to gain."""
    report = leak_table(results.choices) if results.choices else None
    if report is None:
        raise LackingError(
            "it takes scores of both `best` by source validation and `oracle`: train with --probe-holdout, then "
            "`fundus-seg evaluate --all-selections`"
        )
    shown = (
        Shown("unseen", "holdout"),
        OPERATOR,
        Shown("oracle − source-validation [95\u00a0%]", "difference", 2, "low", "high", True),
    )
    frame = report.frame.assign(selection="", holdout=report.frame["holdout"].fillna("mean"))
    yield grid(captioned(frame, results.choices), shown, report.layout.title, report.layout.notes)


def within(results: Results, what: Asked) -> Iterator[Block]:
    """In-domain beside unseen scores, then those of every run."""
    if not results.within:
        raise LackingError("no run has in-domain scores: `fundus-seg evaluate --in-domain` makes them")
    report = domain_gap_table(results.within)
    yield printed(report)
    if lacking := len(results.runs) - len(results.within):
        yield Text(f"{counted(lacking, 'run')} of {len(results.runs)} without in-domain scores.")
    shown = (
        Shown("unseen", "holdout"),
        OPERATOR,
        Shown("seed", "seed", 0),
        Shown("in-domain DSC [%]", "in_domain", 2),
        Shown("unseen DSC [%]", "out_of_domain", 2),
        Shown("gap", "gap", 2, signed=True),
    )
    frame = captioned(report.frame, [out for out, _ in results.within])
    yield grid(frame, shown, f"{heading(results)}Every run, in-domain beside unseen", folded=True)


def seen(results: Results, what: Asked) -> Iterator[Block]:
    """In-domain scores of networks by which no domain is unseen."""
    if not results.seen:
        raise LackingError("no network of these was trained on every domain and scored (`train --holdout none`)")
    evaluations = [run.evaluation for run in results.seen]
    for holdout in sorted({each.meta.run.holdout for each in evaluations}):
        yield printed(in_domain_table([each for each in evaluations if each.meta.run.holdout == holdout], what.metrics))


def _with_heading(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the metrics' headings."""
    return frame.assign(heading=[METRICS[metric].heading for metric in frame["metric"]])
