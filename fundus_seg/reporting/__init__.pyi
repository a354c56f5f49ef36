from .affinity import affinity_reports, affinity_table
from .affinity_figures import affinity_figure, movement_figures, write_affinity
from .anatomical import anatomical_table
from .card import write_card
from .clinical import clinical_table
from .compare import operators_table
from .frames import by_kind, with_labels
from .in_domain import domain_gap_table, in_domain_table
from .leak import leak_table
from .overview import overview_table
from .plots import write_plots
from .position import position_table, write_position_plot
from .profile_table import profile_table
from .published import read_published
from .readers import readers_table
from .reports import evaluation_reports, experiment_reports
from .reproduction import published_table
from .runs import scored_runs
from .suite import suite_table, write_trade_offs
from .table import Report, Table, render
from .tables import score_table

__all__ = [
    "Report",
    "Table",
    "affinity_figure",
    "affinity_reports",
    "affinity_table",
    "anatomical_table",
    "by_kind",
    "clinical_table",
    "domain_gap_table",
    "evaluation_reports",
    "experiment_reports",
    "in_domain_table",
    "leak_table",
    "movement_figures",
    "operators_table",
    "overview_table",
    "position_table",
    "profile_table",
    "published_table",
    "read_published",
    "readers_table",
    "render",
    "score_table",
    "scored_runs",
    "suite_table",
    "with_labels",
    "write_affinity",
    "write_card",
    "write_plots",
    "write_position_plot",
    "write_trade_offs",
]
