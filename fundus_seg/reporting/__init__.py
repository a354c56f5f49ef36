"""Reports of case records and of photographs: a data frame and its layout each. No report imports torch."""

from typing import TYPE_CHECKING

from fundus_seg.lazy import lazy_exports

if TYPE_CHECKING:
    from fundus_seg.reporting.clinical import case_ratios, clinical_table
    from fundus_seg.reporting.compare import operators_table
    from fundus_seg.reporting.frames import by_kind, case_values, summarise
    from fundus_seg.reporting.in_domain import domain_gap_table, domain_gaps
    from fundus_seg.reporting.leak import leak_table
    from fundus_seg.reporting.notes import captions
    from fundus_seg.reporting.plots import write_plots
    from fundus_seg.reporting.published import read_published
    from fundus_seg.reporting.reproduction import published_table
    from fundus_seg.reporting.runs import ScoredRun, scored_runs
    from fundus_seg.reporting.table import Report, Table, render
    from fundus_seg.reporting.tables import score_table

__all__ = [
    "Report",
    "ScoredRun",
    "Table",
    "by_kind",
    "captions",
    "case_ratios",
    "case_values",
    "clinical_table",
    "domain_gap_table",
    "domain_gaps",
    "leak_table",
    "operators_table",
    "published_table",
    "read_published",
    "render",
    "score_table",
    "scored_runs",
    "summarise",
    "write_plots",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Report": "table",
        "ScoredRun": "runs",
        "Table": "table",
        "by_kind": "frames",
        "captions": "notes",
        "case_ratios": "clinical",
        "case_values": "frames",
        "clinical_table": "clinical",
        "domain_gap_table": "in_domain",
        "domain_gaps": "in_domain",
        "leak_table": "leak",
        "operators_table": "compare",
        "published_table": "reproduction",
        "read_published": "published",
        "render": "table",
        "score_table": "tables",
        "scored_runs": "runs",
        "summarise": "frames",
        "write_plots": "plots",
    },
)
