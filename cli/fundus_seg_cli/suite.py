"""What `fundus-seg benchmark --suite` ends in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fundus_seg.data.layout import DataRoot
    from fundus_seg.evaluation.records import Evaluation
    from fundus_seg.experiments import GridRun, Suite
    from fundus_seg.progress import Progress
    from fundus_seg.reporting import Report


def suite_reports(
    suite: Suite,
    root: DataRoot,
    runs: Sequence[GridRun],
    evaluations: Sequence[Evaluation],
    *,
    out: Path,
    plots: Path | None,
    progress: Progress,
) -> Iterator[Report]:
    """The scores of a suite, what position pays where its runs differ in `train.shift`, then scores beside costs.

    Args:
        suite: whose columns the runs have.
        root: the photographs of the runs.
        runs: those that were planned.
        evaluations: the scores of those that are done; without any there is no report.
        out: the folder of all runs, where costs are kept.
        plots: a folder for the plots of the last two; None for no plots.
        progress: shows what is measured, and is told of the plots, and of a report that cannot be made.
    """
    if not evaluations:
        return
    from fundus_seg.errors import FundusSegError
    from fundus_seg.experiments import measure_costs
    from fundus_seg.reporting import position_table, score_table, suite_table, write_position_plot, write_trade_offs

    phantom = evaluations[0].meta.phantom
    written: list[Path] = []
    yield score_table(evaluations)
    if len(shifts := {run.config.train.shift for run in runs}) > 1:
        from fundus_seg.evaluation.feature_variance import measure_variance

        settings = runs[0].config
        try:
            position = position_table(
                runs,
                evaluations,
                measure_variance(
                    root,
                    ("train",),
                    encoder=settings.model.encoder,
                    weights=settings.model.encoder_weights,
                    size=settings.data.size,
                    shifts=sorted(shifts),
                    progress=progress,
                ),
            )
        except FundusSegError as error:
            progress.line(f"no table of gain and alignment: {error}")
        else:
            yield position
            written += write_position_plot(position, plots, phantom=phantom) if plots else []
    costs = measure_costs(runs, out, progress=progress)
    table = suite_table(evaluations, costs, reference=suite.reference)
    yield table
    if plots:
        written += write_trade_offs(table, plots, phantom=phantom)
        progress.line(f"plots: {', '.join(map(str, written))}")
