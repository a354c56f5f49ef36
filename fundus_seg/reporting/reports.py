"""The reports of a whole command, in the order in which they are printed; patients and the phantom each have their own.

A notebook that calls these functions shows what `fundus-seg evaluate` and `fundus-seg benchmark` print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.reporting.anatomical import anatomical_table
from fundus_seg.reporting.clinical import clinical_table
from fundus_seg.reporting.compare import operators_table
from fundus_seg.reporting.frames import by_kind, captions_of
from fundus_seg.reporting.in_domain import domain_gap_table, in_domain_table
from fundus_seg.reporting.leak import leak_table
from fundus_seg.reporting.readers import readers_table
from fundus_seg.reporting.table import Report
from fundus_seg.reporting.tables import score_table


def evaluation_reports(
    evaluations: Sequence[Evaluation],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    pairs: Sequence[tuple[Evaluation, Evaluation]] = (),
    seen: Sequence[Evaluation] = (),
    against: Sequence[Evaluation] = (),
    anatomical: Sequence[tuple[Evaluation, Evaluation]] = (),
    clinical: bool = False,
    leak: bool = False,
) -> Iterator[Report]:
    """The scores of evaluated runs and, where they were asked for, what else was measured.

    Args:
        evaluations: scores on the holdouts, as `evaluate_runs` gives them.
        metrics: the metrics of the scores.
        pairs: scores on the holdout and in-domain; they make a report of the gap between domains.
        seen: in-domain scores of runs without an unseen domain; they make a report of their own.
        against: scores against each reader of the holdouts; they make a report of their own.
        anatomical: scores on the holdout without anatomical masks and with them; they make a report side by side.
        clinical: whether to report the errors of cup-to-disc ratios.
        leak: whether to report what selection on the scored cases would seem to gain.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
        UsageError: an unknown metric.
    """
    kinds = by_kind(evaluations)
    for kind in kinds:
        yield score_table(kind, metrics)
    for kind in by_kind(against):
        yield readers_table(kind, metrics)
    if clinical:
        yield from map(clinical_table, kinds)
    if leak:
        yield from filter(None, map(leak_table, kinds))
    for phantom in (False, True):
        if own := [pair for pair in pairs if pair[0].meta.phantom is phantom]:
            yield domain_gap_table(own)
    for phantom in (False, True):
        if own := [pair for pair in anatomical if pair[0].meta.phantom is phantom]:
            yield anatomical_table(own, metrics)
    for kind in by_kind(seen):
        for holdout in sorted({each.meta.run.holdout for each in kind}):
            yield in_domain_table([each for each in kind if each.meta.run.holdout == holdout], metrics)


def experiment_reports(evaluations: Sequence[Evaluation], *, progress: Progress = SILENT) -> Iterator[Report]:
    """The scores of an experiment, then each pair of its columns compared.

    Args:
        evaluations: scores of the finished runs, as `run_experiment` gives them.
        progress: told of two columns that have nothing in common, in an experiment that is not finished.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
    """
    for kind in by_kind(evaluations):
        yield score_table(kind)
    for pair in combinations(reversed(captions_of(evaluations)), 2):
        try:
            yield operators_table(evaluations, pair)
        except ProtocolError as error:
            progress.line(str(error))
