"""The sections of the page, each of one report or of several: what a set of runs lacks is left out and said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from matplotlib.figure import Figure as MplFigure

from fundus_seg.errors import ProtocolError
from fundus_seg.reporting.clinical import clinical_table
from fundus_seg.reporting.deviations import deviations
from fundus_seg.reporting.frames import captions_of
from fundus_seg.reporting.page.asked import OPERATOR, Asked, captioned, heading, unseen
from fundus_seg.reporting.page.blocks import (
    Block,
    Code,
    Figure,
    Gallery,
    LackingError,
    Lines,
    Part,
    Section,
    Shown,
    Text,
    grid,
    printed,
)
from fundus_seg.reporting.page.cases import SHOWN_CASES, ranked_cases
from fundus_seg.reporting.page.figures import inline_svg
from fundus_seg.reporting.page.kernels import affinity
from fundus_seg.reporting.page.repeat import ROOT, commands, input_rows, run_rows, version_rows
from fundus_seg.reporting.page.results import Results
from fundus_seg.reporting.page.score_sections import compared, leak, scores, seen, within
from fundus_seg.reporting.page.words import asked, methods, protocol_frame
from fundus_seg.reporting.plots import agreement, boxes, learning_curves
from fundus_seg.reporting.published import read_published
from fundus_seg.reporting.reproduction import published_table
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.reporting.table import Report
from fundus_seg.reporting.trust import trust_reports
from fundus_seg.viz.risk import draw_risk_coverage

PUBLISHED = "tvconv2022"
"""The published table that the page's runs stand beside."""


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
    """A section of the page, with the blocks that can be had, and the reason why there are no more.

    Args:
        name: as in `SECTIONS`.
        title: as there.
        make: gives its blocks.
        results: what lies on disk.
        what: the rest.
    """
    blocks: list[Block] = []
    try:
        blocks.extend(make(results, what))
    except (LackingError, ProtocolError) as error:
        return Section(name, title, tuple(blocks), lacking=str(error))
    return Section(name, title, tuple(blocks))


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
    yield from _drawn(boxes(unseen(results), what.metrics), results, "there are no cases")


def _curves(results: Results, what: Asked) -> Iterator[Block]:
    yield from _drawn(learning_curves(unseen(results)), results, "no run's epochs lie beside its scores")


_CLINICAL = (
    Shown("measure", "measure"),
    Shown("unseen", "holdout"),
    OPERATOR,
    Shown("mean error", "mean", 3),
    Shown("SD over runs", "sd", 3),
    Shown("runs", "runs", 0),
    Shown("invalid predictions", "invalid", 0),
    Shown("of", "predictions", 0),
)


def _clinical(results: Results, what: Asked) -> Iterator[Block]:
    evaluations = unseen(results)
    report = clinical_table(evaluations)
    yield printed(report)
    frame = captioned(report.frame, evaluations)
    yield grid(frame, _CLINICAL, f"{heading(results)}Every cell of the table above", folded=True)
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
    plots = [("risk", draw_risk_coverage(captioned(risk.frame), title=risk.layout.title))]
    yield from _drawn(plots, results, "no case has a loss")


def _cases(results: Results, what: Asked) -> Iterator[Block]:
    unseen(results)
    frame = ranked_cases(results)
    there = {(holdout, case) for holdout, case in zip(frame["holdout"], frame["case"], strict=True)}
    own = tuple(
        each for each in what.pictures if (each.holdout, each.case) in there and each.phantom is results.phantom
    )
    title = f"{heading(results)}The worst, the median and the best cases of each unseen domain, a row for each operator"
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
    elif any(run.evaluation.meta.members for run in results.runs):
        yield Text("What was published is of single networks, and these predict together: no number is compared.")
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
            OPERATOR,
            Shown("unseen", "holdout"),
            Shown("seed", "seed", 0),
            Shown("networks", "networks", 0),
            Shown("checkpoint", "checkpoint"),
            Shown("case records", "cases"),
            Shown("begun", "created"),
            Shown("commit", "commit"),
            Shown("computed on", "hardware"),
        ),
        f"{heading(results)}Runs, with the first 16 digits of the SHA-256 of their checkpoints and case records",
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


SECTIONS: Mapping[str, tuple[str, Callable[[Results, Asked], Iterable[Block]]]] = {
    "asked": ("What was asked, and how it is scored", _asked),
    "scores": ("Scores on unseen domains", scores),
    "compared": ("Operators compared, with tests", compared),
    "leak": ("Leak meter", leak),
    "in-domain": ("In-domain beside unseen", within),
    "seen": ("Networks of every domain", seen),
    "boxes": ("Every case, by unseen domain", _boxes),
    "curves": ("Learning curves", _curves),
    "affinity": ("What kernels learned of position", affinity),
    "clinical": ("Cup-to-disc ratios and anatomy", _clinical),
    "trust": ("Trust: risk against coverage", _trust),
    "cases": ("Worst, median and best cases", _cases),
    "published": ("Beside the paper: deviations", _published),
    "repeat": ("To repeat it: commands, environment, digests", _repeat),
    "methods": ("Methods, for a manuscript", _methods),
}
"""The sections in their order: title, and what makes their blocks."""
