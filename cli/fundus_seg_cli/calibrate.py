"""`fundus-seg calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.options import Format, RunData, Runs, Strict, Trust
from fundus_seg_cli.table import print_report


def calibrate(
    runs: Runs = None,
    data: RunData = None,
    form: Format = "rich",
    plots: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for reliability diagrams, as PNG and SVG.")
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Calibrate trust in the runs that differ in their seed alone as one network, instead of in each.",
        ),
    ] = False,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.999,
            help="Probability, at most, that an interval of the cup-to-disc ratio misses a new photograph of the "
            "training domains. It takes 1/alpha - 1 calibration cases at least.",
        ),
    ] = 0.1,
    trust: Trust = None,
    strict: Strict = False,
) -> None:
    """Fit what says how far each run can be trusted: temperatures of its probabilities, and its predicted scores.

    Both are fitted on the source domains, on test cases that chose no checkpoint, and never on the unseen one. They are
    written beside the run. `predict --probabilities` uses the temperatures; `predict` writes a predicted DSC of disc
    and cup and an interval of the cup-to-disc ratio. Masks do not change.
    """
    from fundus_seg.errors import counted
    from fundus_seg.plugins import load
    from fundus_seg.runs.folder import check_folders
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    for name in trust or []:
        load(name)
    folders = runs or [Path("runs")]
    check_folders(folders)

    from fundus_seg.evaluation.calibrate import calibrate_runs
    from fundus_seg.evaluation.trust import calibrate_trust_of_runs
    from fundus_seg.reporting.calibration import calibration_reports, write_reliability

    measured = calibrate_runs(folders, data, progress=progress)
    for report in calibration_reports(measured):
        print_report(report, form, progress.told)
    calibrate_trust_of_runs(folders, data, ensemble=ensemble, alpha=alpha, progress=progress)
    if plots:
        progress.line(f"{counted(len(write_reliability(measured, plots)), 'file')} of plots in {plots}")
    progress.check(strict=strict)
