"""What is reported of results: each report is a data frame and the layout in which it is printed."""

from typing import TYPE_CHECKING

from fundus_seg.lazy import lazy_exports

if TYPE_CHECKING:
    from fundus_seg.reporting.clinical import clinical_table
    from fundus_seg.reporting.compare import operators_table
    from fundus_seg.reporting.frames import by_kind, with_labels
    from fundus_seg.reporting.in_domain import domain_gap_table
    from fundus_seg.reporting.leak import leak_table
    from fundus_seg.reporting.overview import overview_table
    from fundus_seg.reporting.plots import write_plots
    from fundus_seg.reporting.profile_table import profile_table
    from fundus_seg.reporting.published import read_published
    from fundus_seg.reporting.reports import evaluation_reports, experiment_reports
    from fundus_seg.reporting.reproduction import published_table
    from fundus_seg.reporting.runs import scored_runs
    from fundus_seg.reporting.table import Report, Table, render
    from fundus_seg.reporting.tables import score_table

__all__ = [
    "Report",
    "Table",
    "by_kind",
    "clinical_table",
    "domain_gap_table",
    "evaluation_reports",
    "experiment_reports",
    "leak_table",
    "operators_table",
    "overview_table",
    "profile_table",
    "published_table",
    "read_published",
    "render",
    "score_table",
    "scored_runs",
    "with_labels",
    "write_plots",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Report": "table",
        "Table": "table",
        "by_kind": "frames",
        "clinical_table": "clinical",
        "domain_gap_table": "in_domain",
        "evaluation_reports": "reports",
        "experiment_reports": "reports",
        "leak_table": "leak",
        "operators_table": "compare",
        "overview_table": "overview",
        "profile_table": "profile_table",
        "published_table": "reproduction",
        "read_published": "published",
        "render": "table",
        "score_table": "tables",
        "scored_runs": "runs",
        "with_labels": "frames",
        "write_plots": "plots",
    },
)
