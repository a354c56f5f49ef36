"""`fundus-seg report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.options import (
    METRICS_SHOWN,
    TRUST_MEASURED,
    Checkpoint,
    Ensemble,
    Labels,
    Metrics,
    NetworkViews,
    RunData,
    Runs,
    Scoring,
    Strict,
    TrustMeasured,
    labels,
    names,
)


def report(
    runs: Runs = None,
    out: Annotated[Path, typer.Option(help="File that the page is written to.")] = Path("report.html"),
    with_photographs: Annotated[
        bool,
        typer.Option(
            "--with-photographs",
            help="Also show the photographs of the worst, median and best cases, with the contours of the truth and of "
            "each operator; their masks are predicted anew. Without it, no photograph is in the page.",
        ),
    ] = False,
    data: RunData = None,
    metrics: Metrics = METRICS_SHOWN,
    checkpoint: Checkpoint = "best",
    scoring: Scoring = None,
    ensemble: Ensemble = False,
    views: NetworkViews = None,
    label: Labels = None,
    trust: TrustMeasured = None,
    strict: Strict = False,
) -> None:
    """Write one page of everything that evaluated runs have: a single HTML file that opens offline, anywhere.

    Nothing is trained or scored: `fundus-seg evaluate` does that before, with --all-selections for the leak meter and
    --in-domain for in-domain scores. What the runs lack is left out, and the page says why. Tests compare operators by
    the first of the metrics.
    """
    from fundus_seg.config import load_scoring
    from fundus_seg.errors import UsageError
    from fundus_seg.evaluation.metric_table import check_metrics
    from fundus_seg.plugins import load
    from fundus_seg.runs.folder import check_folders
    from fundus_seg_cli.progress import Terminal

    shown, progress = names(metrics), Terminal()
    check_metrics(shown)
    protocol = load_scoring(scoring) if scoring else None
    renamed, trusted = labels(label or []), trust or []
    for name in trusted:
        if name != TRUST_MEASURED:
            load(name)
    folders = runs or [Path("runs")]
    check_folders(folders)
    if out.is_dir():
        raise UsageError(f"--out {out}: a folder; name the file, as {out / 'report.html'}")

    from fundus_seg.reporting.page.asked import Asked
    from fundus_seg.reporting.page.render import report_page, write_page  # pandas, only once the arguments are right
    from fundus_seg.reporting.page.results import find_results

    found = find_results(
        folders,
        checkpoint=checkpoint,
        scoring=protocol,
        ensemble=ensemble,
        views=views,
        labels=renamed,
        progress=progress,
    )
    measured, pictures = [], []
    if TRUST_MEASURED in trusted:
        from fundus_seg.evaluation.trust import measure_trust_of_runs

        measured = measure_trust_of_runs(folders, data, ensemble=ensemble, progress=progress)
    if with_photographs:
        from fundus_seg.evaluation.predictions import case_predictor
        from fundus_seg.reporting.page.pictures import pictures_of

        predict = case_predictor(folders, data, ensemble=ensemble, progress=progress)
        pictures = [each for results in found for each in pictures_of(results, predict, progress=progress)]
    page = report_page(found, Asked(shown, measured, pictures), left_out=progress.told, progress=progress)
    write_page(page, out, pictures=len(pictures), say=progress.line)
    progress.check(strict=strict)
