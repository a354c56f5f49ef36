"""The sections of the page, each of one report or of several: what a set of runs lacks is left out and said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from matplotlib.figure import Figure as MplFigure

from fundus_seg.errors import ProtocolError, counted
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.trusted import TrustedRun
from fundus_seg.reporting.clinical import clinical_table
from fundus_seg.reporting.compare import operators_table
from fundus_seg.reporting.deviations import deviations
from fundus_seg.reporting.frames import captions_of, labelled, labels_of
from fundus_seg.reporting.in_domain import domain_gap_table, in_domain_table
from fundus_seg.reporting.leak import leak_table
from fundus_seg.reporting.notes import PHANTOM_HEADING, captions
from fundus_seg.reporting.page.blocks import (
    Block,
    Code,
    Figure,
    Gallery,
    LackingError,
    Lines,
    Part,
    Picture,
    Section,
    Shown,
    Text,
    grid,
    printed,
)
from fundus_seg.reporting.page.cases import SHOWN_CASES, ranked_cases
from fundus_seg.reporting.page.figures import inline_svg
from fundus_seg.reporting.page.repeat import ROOT, commands, input_rows, run_rows, version_rows
from fundus_seg.reporting.page.results import Results
from fundus_seg.reporting.page.words import asked, methods, protocol_frame
from fundus_seg.reporting.plots import agreement, boxes, learning_curves
from fundus_seg.reporting.published import read_published
from fundus_seg.reporting.reproduction import published_table
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.reporting.table import Report
from fundus_seg.reporting.tables import score_table
from fundus_seg.reporting.trust import trust_reports
from fundus_seg.runs.identity import COLUMN_FIELDS, Column
from fundus_seg.viz.risk import draw_risk_coverage

PUBLISHED = "tvconv2022"
"""The published table that the page's runs stand beside."""


@dataclass(frozen=True)
class Asked:
    """What the page is of, besides the results.

    Attributes:
        metrics: keys of `METRICS`.
        trusted: trust measured on the unseen domains.
        pictures: photographs of the chosen cases with their contours.
    """

    metrics: Sequence[str] = DEFAULT_METRICS
    trusted: Sequence[TrustedRun] = ()
    pictures: Sequence[Picture] = ()


def part_of(results: Results, what: Asked, done: Callable[..., None] = lambda **_: None) -> Part:
    """All sections of one kind of photographs.

    Args:
        results: what lies on disk.
        what: the rest.
        done: called after each section.
    """
    sections = []
    for name, (title, make) in SECTIONS.items():
        sections.append(section(name, title, make, results, what))
        done()
    return Part(results.phantom, tuple(sections))


def section(
    name: str, title: str, make: Callable[[Results, Asked], Iterable[Block]], results: Results, what: Asked
) -> Section:
    """A section of the page; where its blocks cannot be had it has none, and the reason.

    Args:
        name: as in `SECTIONS`.
        title: as there.
        make: gives its blocks.
        results: what lies on disk.
        what: the rest.
    """
    try:
        return Section(name, title, tuple(make(results, what)))
    except (LackingError, ProtocolError) as error:
        return Section(name, title, lacking=str(error))


def _asked(results: Results, what: Asked) -> Iterator[Block]:
    protocol = results.every_run[0].evaluation.meta.protocol if results.every_run else results.external[0].meta.protocol
    yield Lines(tuple(asked(results)))
    yield grid(
        protocol_frame(protocol),
        (
            Shown("setting", "setting"),
            Shown("value", "value"),
            Shown("default", "default"),
            Shown("meaning", "meaning"),
        ),
        f"Scoring protocol {protocol.digest()}: what makes these scores comparable with others",
        folded=True,
    )


_PLACE = (Shown("metric", "heading"), Shown("structure", "structure"), Shown("unseen", "holdout"))
_OPERATOR = Shown("operator", "column")
_SCORES = (
    *_PLACE,
    _OPERATOR,
    Shown("mean [95 % interval]", "mean", 2, "low", "high"),
    Shown("SD over runs", "sd", 2),
    Shown("runs", "runs", 0),
    Shown("resampled over", "over"),
    Shown("predictions alike (IoU)", "alike", 3),
    Shown("true masks alike (IoU)", "true_alike", 3),
)


def _scores(results: Results, what: Asked) -> Iterator[Block]:
    evaluations = _unseen(results)
    report = score_table(evaluations, what.metrics)
    yield printed(report)
    frame = _captioned(report.frame, evaluations)
    yield grid(_with_heading(frame), _SCORES, f"{_heading(results)}Every cell of the table above, with its interval")


_COMPARED = (
    *_PLACE[1:],
    Shown("first", "first"),
    Shown("second", "second"),
    Shown("mean of first", "first_mean", 2),
    Shown("mean of second", "second_mean", 2),
    Shown("difference [95 %]", "difference", 2, "low", "high", signed=True),
    Shown("p (Wilcoxon)", "p", 4),
    Shown("p (Holm)", "p_holm", 4),
    Shown("p over runs", "p_runs", 4),
    Shown("rank-biserial", "rank_biserial", 2, signed=True),
    Shown("runs", "runs", 0),
    Shown("cases", "cases", 0),
    Shown("detectable", "detectable", 2),
    Shown("runs needed for 1", "runs_needed", 0),
    Shown("floor", "floor", 2),
)


def _compared(results: Results, what: Asked) -> Iterator[Block]:
    evaluations = _unseen(results)
    names = captions_of(evaluations)
    if len(names) < 2:
        raise LackingError(f"there is one operator alone, {', '.join(names.values())}, and nothing to compare it with")
    frames, lines, notes = [], [], dict[str, None]()
    metric = what.metrics[0]
    for pair in combinations(reversed(names), 2):
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
    title = f"{_heading(results)}{METRICS[metric].heading}, first minus second, by structure and unseen domain"
    yield grid(frame, _COMPARED, title, [*lines, *notes])


def _leak(results: Results, what: Asked) -> Iterator[Block]:
    report = leak_table(results.choices) if results.choices else None
    if report is None:
        raise LackingError(
            "it takes scores of both `best` by source validation and `oracle`: train with --probe-holdout, then "
            "`fundus-seg evaluate --all-selections`"
        )
    shown = (
        Shown("unseen", "holdout"),
        _OPERATOR,
        Shown("oracle − source-validation [95 %]", "difference", 2, "low", "high", True),
    )
    frame = report.frame.assign(selection="", holdout=report.frame["holdout"].fillna("mean"))
    yield grid(_captioned(frame, results.choices), shown, report.layout.title, report.layout.notes)


def _captioned(frame: pd.DataFrame, evaluations: Sequence[Evaluation] = ()) -> pd.DataFrame:
    """The frame with the captions of its own columns, and with the labels that the user gave."""
    rows = frame[list(COLUMN_FIELDS)].drop_duplicates().itertuples(index=False)
    return labelled(frame, captions((Column(*fields) for fields in rows), labels_of(evaluations)))


def _within(results: Results, what: Asked) -> Iterator[Block]:
    if not results.within:
        raise LackingError("no run has in-domain scores: `fundus-seg evaluate --in-domain` makes them")
    report = domain_gap_table(results.within)
    yield printed(report)
    if lacking := len(results.runs) - len(results.within):
        yield Text(f"{counted(lacking, 'run')} of {len(results.runs)} without in-domain scores.")
    shown = (
        Shown("unseen", "holdout"),
        _OPERATOR,
        Shown("seed", "seed", 0),
        Shown("in-domain DSC [%]", "in_domain", 2),
        Shown("unseen DSC [%]", "out_of_domain", 2),
        Shown("gap", "gap", 2, signed=True),
    )
    frame = _captioned(report.frame, [out for out, _ in results.within])
    yield grid(frame, shown, f"{_heading(results)}Every run, in-domain beside unseen", folded=True)


def _seen(results: Results, what: Asked) -> Iterator[Block]:
    if not results.seen:
        raise LackingError("no network of these was trained on every domain and scored (`train --holdout none`)")
    evaluations = [run.evaluation for run in results.seen]
    for holdout in sorted({each.meta.run.holdout for each in evaluations}):
        yield printed(in_domain_table([each for each in evaluations if each.meta.run.holdout == holdout], what.metrics))


def _drawn(plots: Iterable[tuple[str, MplFigure]], results: Results, lacking: str) -> Iterator[Block]:
    """The plots, by names that no other kind of photographs has.

    Raises:
        LackingError: there is none; `lacking` says why.
    """
    kind = "phantom" if results.phantom else "patients"
    blocks = [Figure(inline_svg(figure, f"{kind}-{name}"), figure.get_suptitle()) for name, figure in plots]
    if not blocks:
        raise LackingError(lacking)
    yield from blocks


def _boxes(results: Results, what: Asked) -> Iterator[Block]:
    yield from _drawn(boxes(_unseen(results), what.metrics), results, "there are no cases")


def _curves(results: Results, what: Asked) -> Iterator[Block]:
    yield from _drawn(learning_curves(_unseen(results)), results, "no run's epochs lie beside its scores")


_CLINICAL = (
    Shown("measure", "measure"),
    Shown("unseen", "holdout"),
    _OPERATOR,
    Shown("mean error", "mean", 3),
    Shown("SD over runs", "sd", 3),
    Shown("runs", "runs", 0),
    Shown("invalid predictions", "invalid", 0),
    Shown("of", "predictions", 0),
)


def _clinical(results: Results, what: Asked) -> Iterator[Block]:
    evaluations = _unseen(results)
    report = clinical_table(evaluations)
    yield printed(report)
    frame = _captioned(report.frame, evaluations)
    yield grid(frame, _CLINICAL, f"{_heading(results)}Every cell of the table above", folded=True)
    yield from _drawn(agreement(evaluations), results, "no case has both a predicted and a true ratio")


def _trust(results: Results, what: Asked) -> Iterator[Block]:
    own = [each for each in what.trusted if each.calibration.phantom is results.phantom]
    if not own:
        raise LackingError(
            "trust was not measured: `fundus-seg report --trust` predicts every photograph of the unseen domains anew "
            "and measures it"
        )
    measured, risk = trust_reports(own)
    yield printed(measured)
    plots = [("risk", draw_risk_coverage(_captioned(risk.frame), title=risk.layout.title))]
    yield from _drawn(plots, results, "no case has a loss")


def _cases(results: Results, what: Asked) -> Iterator[Block]:
    _unseen(results)
    frame = ranked_cases(results)
    there = {(holdout, case) for holdout, case in zip(frame["holdout"], frame["case"], strict=True)}
    own = tuple(
        each for each in what.pictures if (each.holdout, each.case) in there and each.phantom is results.phantom
    )
    title = (
        f"{_heading(results)}The worst, the median and the best cases of each unseen domain, a row for each operator"
    )
    notes = (
        "ranked by the mean DSC over structures, runs and operators; every number is a mean over runs, and the floor "
        "has no part in it",
    )
    if own:
        yield Text("Contours are those of each operator's run with the lowest seed.")
        yield Gallery(own)
    else:
        yield Text("Without photographs: `fundus-seg report --with-photographs` shows these cases and their contours.")
    yield grid(frame, SHOWN_CASES, title, notes)


def _published(results: Results, what: Asked) -> Iterator[Block]:
    published = read_published(PUBLISHED)
    if not results.runs:
        raise LackingError("no run here has an unseen domain")
    names = captions_of([run.evaluation for run in results.runs])
    columns: dict[str, list[ScoredRun]] = {}
    for run in results.runs:
        columns.setdefault(names[run.evaluation.meta.column], []).append(run)
    if results.phantom:
        yield Text("These photographs are synthetic: nothing was published on them, and no number is compared.")
    else:
        yield from _beside(lambda: published_table(results.runs, published))
    yield Lines(tuple(deviations(columns, published)))


def _beside(make: Callable[[], Report]) -> Iterator[Block]:
    """The table beside the published one, or why there is none."""
    try:
        yield printed(make(), notes=False)
    except ProtocolError as error:
        yield Text(f"No table beside the published one: {error}.")


def _repeat(results: Results, what: Asked) -> Iterator[Block]:
    if results.every_run:
        lines = commands(results)
        if any(ROOT in line for line in lines):
            yield Text(
                f"{ROOT} stands for the data root; the digests below tell whether it holds the same photographs."
            )
        yield Code(lines)
    yield grid(
        run_rows(results),
        (
            _OPERATOR,
            Shown("unseen", "holdout"),
            Shown("seed", "seed", 0),
            Shown("networks", "networks", 0),
            Shown("checkpoint", "checkpoint"),
            Shown("case records", "cases"),
            Shown("begun", "created"),
            Shown("commit", "commit"),
            Shown("computed on", "hardware"),
        ),
        f"{_heading(results)}Runs, with the first 16 digits of the SHA-256 of their checkpoints and case records",
        folded=True,
    )
    shown = (Shown("input", "what"), Shown("digest", "digest"), Shown("evaluations", "evaluations", 0))
    if len(inputs := input_rows(results)):  # of masks that other tools made, none is recorded
        yield grid(inputs, shown, "Digests of photographs and masks, plugins and starting weights", folded=True)
    shown = (Shown("software", "name"), Shown("version", "version"), Shown("evaluations", "evaluations", 0))
    yield grid(version_rows(results), shown, "Environment in which the scores were made", folded=True)


def _methods(results: Results, what: Asked) -> Iterator[Block]:
    if not results.every_run:
        raise LackingError("of masks that other tools made, no recipe is known")
    yield Text(methods(results), copied=True)


def _unseen(results: Results) -> list[Evaluation]:
    """The evaluations of unseen domains.

    Raises:
        LackingError: there is none.
    """
    if not results.evaluations:
        raise LackingError("no run here has an unseen domain")
    return results.evaluations


def _with_heading(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the metrics' headings."""
    return frame.assign(heading=[METRICS[metric].heading for metric in frame["metric"]])


def _heading(results: Results) -> str:
    return PHANTOM_HEADING if results.phantom else ""


SECTIONS: Mapping[str, tuple[str, Callable[[Results, Asked], Iterable[Block]]]] = {
    "asked": ("What was asked, and how it is scored", _asked),
    "scores": ("Scores on unseen domains", _scores),
    "compared": ("Operators compared, with tests", _compared),
    "leak": ("Leak meter", _leak),
    "in-domain": ("In-domain beside unseen", _within),
    "seen": ("Networks of every domain", _seen),
    "boxes": ("Every case, by unseen domain", _boxes),
    "curves": ("Learning curves", _curves),
    "clinical": ("Cup-to-disc ratios and anatomy", _clinical),
    "trust": ("Trust: risk against coverage", _trust),
    "cases": ("Worst, median and best cases", _cases),
    "published": ("Beside the paper: deviations", _published),
    "repeat": ("To repeat it: commands, environment, digests", _repeat),
    "methods": ("Methods, for a manuscript", _methods),
}
"""The sections in their order: title, and what makes their blocks."""
