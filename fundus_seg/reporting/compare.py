"""The table that compares two operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import pandas as pd

from fundus_seg.errors import ProtocolError, UsageError, counted, unknown_name
from fundus_seg.evaluation.external import comparable
from fundus_seg.evaluation.metric_table import METRICS, check_metrics
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.floors import Place, floor_means, floors_of, networks
from fundus_seg.reporting.frames import captions_of, case_values, labelled
from fundus_seg.reporting.notes import SCORE_AGAIN, counts_and_protocol, table_title
from fundus_seg.reporting.table import Report, Table, difference_text, mean_sd_text, p_text
from fundus_seg.reporting.tables import overall
from fundus_seg.runs.identity import MEAN_MASK, Column
from fundus_seg.statistics.comparison import ComparedCell, OperatorComparison, compare_operators
from fundus_seg.statistics.intervals import ALPHA, MINIMAL_RUNS


def operators_table(
    evaluations: Sequence[Evaluation],
    names: Sequence[str | Column] | None = None,
    *,
    metric: str = "dsc",
    sought: float = 1.0,
    tried: Mapping[str, int] | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Two operators compared by one metric, the first minus the second.

    The frame has a row for each cell that is compared, and one over all of them where no cell is missing: metric, unit,
    structure, holdout, COLUMN_FIELDS of the first and of the second operator (`first_operator`, ...), then the numbers
    of `ComparedCell`, the sought difference, what the interval was resampled over, and the mean of the floor, NaN where
    it is not known. Structure and holdout are NA in the row over all.

    The title says how checkpoints were chosen, and PHANTOM where it is one; the notes say what the numbers are, what
    was not compared, the counts and the protocol.

    Args:
        evaluations: of runs, of masks that another tool made, or of both; those of the two operators among them. What
            the others are does not matter.
        names: the two columns, as in `columns_named`. None where there are just two, of which the later in a table's
            order is the first here.
        metric: a key of `METRICS`.
        sought: the difference, in the metric's unit, to say the needed runs for.
        tried: how many settings of each operator the columns were chosen from (`best_of.search`); None for columns that
            were not chosen. Intervals and p values are corrected for the number of pairs.
        progress: told which evaluations are left out, since they are older than the metric.

    Raises:
        UsageError: not two columns, or an unknown one or metric.
        ProtocolError: evaluations that must not stand in one table, or with nothing in common.
    """
    check_metrics([metric])
    captions = captions_of(evaluations)
    pair = columns_named(names, captions) if names else [*reversed(captions)]
    if len(pair) != 2:
        raise UsageError(f"two operators are compared: name them with --ops, of {', '.join(captions.values())}")
    own = _with_metric([each for each in evaluations if each.meta.column in pair], metric, progress)
    values = labelled(case_values(own), captions)
    first, second = (captions[column] for column in pair)
    counts = [(tried or {}).get(column.operator, 1) for column in pair]
    comparison = _within_range(
        compare_operators(values, first, second, metric=metric, sought=sought, tried=math.prod(counts))
    )
    notes = (
        *_search_notes(counts),
        *_notes(comparison, [captions[column] for column in pair if column.external]),
        *(f"{captions[column]}: no network, the same masks beside every seed" for column in pair if column.floor),
        *counts_and_protocol(own, values, [metric]),
    )
    title = table_title(f"{METRICS[metric].heading}, unseen domains: {first} and {second}", own)
    floors = floors_of(own)
    means = {} if any(column.floor for column in pair) else floor_means(floors, metric)
    if means:
        notes = (*notes, *floors.notes)
        means[None, None] = _over_all(means, comparison.cells)
    return Report(_frame(comparison, pair, means), _layout(comparison, means, title, notes))


def columns_named(names: Sequence[str | Column], captions: Mapping[Column, str]) -> list[Column]:
    """The columns that are meant by names.

    Args:
        names: for each column its caption, its operator and recipe as `operator-recipe`, or its operator, if no other
            column has the same; or the column itself.
        captions: the captions of all columns.

    Raises:
        UsageError: a name that no column has, or several.
    """
    return [name if isinstance(name, Column) else _column(name, captions) for name in names]


def _column(name: str, captions: Mapping[Column, str]) -> Column:
    by_caption = [column for column, caption in captions.items() if caption == name]
    exact = [column for column in captions if column.name == name]
    same_operator = [column for column in captions if column.operator == name]
    for fitting in (by_caption, exact, same_operator):
        if len(fitting) == 1:
            return fitting[0]
    if same_operator or exact:
        several = ", ".join(captions[column] for column in exact or same_operator)
        raise UsageError(f"operator '{name}' has several columns: name one of {several}")
    if name == MEAN_MASK:
        raise UsageError(
            f"{MEAN_MASK}, the floor, lies beside no run; `fundus-seg evaluate` adds it, and trains nothing"
        )
    raise UsageError(unknown_name("operator", name, captions.values()))


def comparable_columns(
    evaluations: Sequence[Evaluation],
    names: Sequence[str] | None = None,
    *,
    scoring: Scoring | None = None,
    progress: Progress = SILENT,
) -> tuple[list[Evaluation], list[Column] | None]:
    """The evaluations that can be compared, for `operators_table`, and the columns that are meant by names.

    Args:
        evaluations: of runs, of masks that another tool made, or of both.
        names: as in `columns_named`; a floor, `mean-mask`, may be among them. All others are then no matter. None keeps
            every column of `evaluations`.
        scoring: the protocol, if one was asked for.
        progress: told which masks of other tools are left out (`comparable`).

    Raises:
        UsageError: as `columns_named`.
        ProtocolError: nothing of a named column is left.
    """
    shown = [*floors_of(evaluations).evaluations, *evaluations] if names else evaluations
    captions = captions_of(shown)
    pair = columns_named(names, captions) if names else None
    asked = [each for each in shown if pair is None or each.meta.column in pair]
    own = [each for each in asked if not each.meta.external]
    external = [each for each in asked if each.meta.external]
    kept = [*own, *comparable(external, own, scoring=scoring, progress=progress)]
    there = {each.meta.column for each in kept}
    for column in pair or ():
        if column not in there:
            raise ProtocolError(f"{captions[column]}: none of its scores can stand beside the others, as said above")
    return _beside_each_seed(kept), pair


def _over_all(means: Mapping[Place, float], cells: Iterable[ComparedCell]) -> float:
    """The mean over unseen domains of the mean over structures; NaN where one of the cells has no mean."""
    by_holdout: dict[str | None, list[float]] = {}
    for cell in cells:
        by_holdout.setdefault(cell.holdout, []).append(means.get((cell.structure, cell.holdout), math.nan))
    return overall([overall(own) for own in by_holdout.values()])


def _beside_each_seed(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations, each floor among them once for each seed of its unseen domain: it is the same for all seeds."""
    seeds: dict[str, set[int]] = {}
    for each in networks(evaluations):
        seeds.setdefault(each.meta.run.holdout, set()).add(each.meta.run.seed)
    spread = []
    for each in evaluations:
        run = each.meta.run
        for seed in sorted(seeds.get(run.holdout, {run.seed})) if each.meta.column.floor else [run.seed]:
            meta = each.meta.model_copy(update={"run": replace(run, seed=seed)})
            spread.append(replace(each, meta=meta))
    return spread


def _with_metric(evaluations: Sequence[Evaluation], metric: str, progress: Progress) -> list[Evaluation]:
    """The evaluations whose records hold the metric.

    Raises:
        ProtocolError: none of one column does.
    """
    kept = [each for each in evaluations if metric in each.cases]
    lacking = [each for each in evaluations if metric not in each.cases]
    there = {each.meta.column for each in kept}
    for each in lacking:
        if each.meta.column not in there:
            raise ProtocolError(f"{each.path}: older than the metric {metric}, which it lacks; {SCORE_AGAIN}")
    paths = [each.path for each in lacking]
    progress.left_out("evaluation", f"older than the metric {metric}", paths, SCORE_AGAIN)
    return kept


def _within_range(comparison: OperatorComparison) -> OperatorComparison:
    """The comparison with intervals of differences that are possible: of two percentages, from -100 to 100."""
    least, most = METRICS[comparison.metric].bounds
    span = most - least

    def within(cell: ComparedCell) -> ComparedCell:
        return replace(cell, interval=cell.interval.within(-span, span))

    overall = comparison.overall and within(comparison.overall)
    return replace(comparison, cells=tuple(map(within, comparison.cells)), overall=overall)


def _frame(comparison: OperatorComparison, pair: Sequence[Column], floors: Mapping[Place, float]) -> pd.DataFrame:
    cells = [*comparison.cells]
    if comparison.overall:
        cells.append(comparison.overall)
    identity = {
        f"{which}_{key}": text
        for which, column in zip(("first", "second"), pair, strict=True)
        for key, text in asdict(column).items()
    }
    rows = [
        {
            "metric": comparison.metric,
            "unit": METRICS[comparison.metric].unit,
            "structure": cell.structure,
            "holdout": cell.holdout,
            **identity,
            "first_mean": cell.first,
            "second_mean": cell.second,
            "difference": cell.difference,
            "low": cell.interval.low,
            "high": cell.interval.high,
            "p": cell.p,
            "p_holm": cell.p_holm,
            "p_runs": cell.p_runs,
            "rank_biserial": cell.rank_biserial,
            "runs": cell.runs,
            "cases": cell.cases,
            "patients": cell.patients,
            "detectable": cell.detectable,
            "sought": comparison.sought,
            "runs_needed": cell.runs_needed,
            "over": cell.interval.over,
            "floor": floors.get((cell.structure, cell.holdout), math.nan),
        }
        for cell in cells
    ]
    return pd.DataFrame(rows).astype({"runs_needed": "Int64"})


def _layout(comparison: OperatorComparison, floors: Mapping[Place, float], title: str, notes: tuple[str, ...]) -> Table:
    """A row for each cell and one for all: means, floor, difference with its interval, tests, effect size, power."""
    columns: list[tuple[str, Callable[[ComparedCell], str], str]] = [  # heading, text, text of a missing cell
        (comparison.first, lambda cell: f"{cell.first:.2f}", "missing"),
        (comparison.second, lambda cell: f"{cell.second:.2f}", "missing"),
        (f"difference [{_level(comparison)} %]", _difference_text, "missing"),
        ("p (Holm)", lambda cell: p_text(cell.p_holm), "-"),
        ("rank-biserial", lambda cell: f"{cell.rank_biserial:+.2f}", "-"),
        ("runs", lambda cell: str(cell.runs), "-"),
        ("cases", lambda cell: str(cell.cases), "-"),
        ("p (runs)", lambda cell: p_text(cell.p_runs), "-"),
        ("detectable", lambda cell: "-" if math.isnan(cell.detectable) else f"{cell.detectable:.2f}", "-"),
        (f"runs for {comparison.sought:g}", _runs_needed_text, "-"),
    ]

    def floor_text(cell: ComparedCell) -> str:
        return mean_sd_text(floors.get((cell.structure, cell.holdout), math.nan))

    if floors:
        columns.insert(2, (MEAN_MASK, floor_text, "missing"))
    rows = [
        (str(cell.structure), str(cell.holdout), *(text(cell) for _, text, _ in columns)) for cell in comparison.cells
    ]
    overall = comparison.overall
    rows.append(("all", "all", *(text(overall) if overall else without for _, text, without in columns)))
    return Table(title, ("structure", "unseen"), tuple(heading for heading, _, _ in columns), tuple(rows), notes)


def _level(comparison: OperatorComparison) -> str:
    """How many intervals in a hundred hold the true difference: `95`, or more where many pairs were tried."""
    return f"{100 * (1 - ALPHA / comparison.tried):.4g}"


def _search_notes(counts: Sequence[int]) -> list[str]:
    """What the numbers are corrected for, where the two columns were chosen from several."""
    pairs = math.prod(counts)
    if pairs == 1:
        return []
    return [
        f"corrected for {' x '.join(map(str, counts))} = {pairs} pairs of settings tried (Bonferroni): p values are "
        f"multiplied by {pairs}, and an interval misses the true difference {pairs} times less often; detectable and "
        "needed runs are not corrected",
        "no score of the unseen domain had a part in the choice, so a test of these very networks needs no correction; "
        "a statement about other seeds needs one, since networks that were lucky with their seeds on the sources may "
        "be lucky elsewhere too; this correction holds for any choice, and is larger than this choice needs",
    ]


def _difference_text(cell: ComparedCell) -> str:
    starred = "*" if cell.interval.over == "cases" else ""
    return difference_text(cell.difference, cell.interval.low, cell.interval.high) + starred


def _runs_needed_text(cell: ComparedCell) -> str:
    if cell.runs_needed:
        return str(cell.runs_needed)
    return "-" if cell.runs < 2 else "over 10000"


def _notes(comparison: OperatorComparison, external: Iterable[str]) -> list[str]:
    """What the numbers are, and what was not compared."""
    unit = "points" if METRICS[comparison.metric].unit == "%" else "pixels of 800"
    overall = "the mean over unseen domains of the mean over structures"
    if not comparison.overall:
        overall += ", missing as long as a cell of either operator is not compared"
    interval = f"{_level(comparison)} % interval: bootstrap over runs and cases"
    if any(cell.interval.over == "cases" for cell in comparison.cells):
        interval += f"; over cases only, marked *, below {MINIMAL_RUNS} runs: it then says nothing about other seeds"
    notes = [
        f"difference: {comparison.first} minus {comparison.second} in {unit}, runs paired by seed, cases by name; all: "
        + overall,
        interval,
        f"p: Wilcoxon's signed-rank test on case means over seeds, of these networks; Holm over "
        f"{counted(len(comparison.cells), 'cell')}; over all it pools the cases of all domains, one test on its own",
        "rank-biserial: 1 where the first is larger in every case, -1 where the second is",
        "p (runs): paired t-test over runs, of other seeds too, not adjusted for the cells; detectable: the smallest "
        f"difference that this t-test finds with 80 % power; runs for {comparison.sought:g}: how many it needs to find "
        f"one of {comparison.sought:g}",
    ]
    notes += [
        f"{caption}: masks from elsewhere, selection and recipe unknown; its seeds share no batches with the other's"
        for caption in external
    ]
    return notes + [f"not compared: {line}" for line in comparison.unpaired]
