"""The section of what kernels learned of position: of the runs that `fundus-seg affinity` has measured."""

from __future__ import annotations

from collections.abc import Iterator

from fundus_seg.errors import counted
from fundus_seg.reporting.affinity import affinity_table
from fundus_seg.reporting.affinity_figures import affinity_figure
from fundus_seg.reporting.frames import captions_of
from fundus_seg.reporting.page.asked import Asked
from fundus_seg.reporting.page.blocks import Block, Figure, LackingError, Text, printed
from fundus_seg.reporting.page.figures import inline_svg
from fundus_seg.reporting.page.results import Results
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.kernels import RunKernels, kernels_file, read_kernels

MEASURE = "fundus-seg affinity runs"
"""The command that measures kernels."""


def measured_kernels(results: Results) -> tuple[list[RunKernels], int]:
    """What was measured of the very weights that were scored, and of how many runs it is out of date.

    Raises:
        RunError: a file of it is damaged.
    """
    found: list[RunKernels] = []
    outdated = 0
    for evaluation in (run.evaluation for run in results.every_run):
        meta = evaluation.meta
        if meta.members or meta.checkpoint is None:  # what several networks or another tool predict has no kernels
            continue
        path = kernels_file(RunFolder(evaluation.path.parents[1]), meta.checkpoint)
        if not path.is_file():
            continue
        layers, digest = read_kernels(path)
        if digest != meta.checkpoint_sha256:
            outdated += 1
            continue
        run = meta.run
        found.append(
            RunKernels(path.parents[1], meta.column, run.holdout, run.seed, meta.phantom, meta.checkpoint, layers)
        )
    return found, outdated


def affinity(results: Results, what: Asked) -> Iterator[Block]:
    """The figure with its caption, and the table of all that were measured."""
    measured, outdated = measured_kernels(results)
    other = f"{counted(outdated, 'run')} measured with other weights than those that were scored: `{MEASURE}`."
    if outdated and not measured:
        raise LackingError(other)
    if not measured:
        raise LackingError(f"no kernels were measured: `{MEASURE}` does that, of tvconv, linear and untied")
    names = captions_of([run.evaluation for run in results.every_run])
    figure, caption = affinity_figure(measured, names)
    kind = "phantom" if results.phantom else "patients"
    yield Figure(inline_svg(figure, f"{kind}-affinity"), figure.get_suptitle(), caption)
    yield printed(affinity_table(measured, names))
    if outdated:
        yield Text(other)
