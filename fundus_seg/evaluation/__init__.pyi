from .affinity import measure_kernels
from .external import comparable, external_evaluations, score_masks
from .metric_table import METRICS, Metric
from .policy import cup_to_disc_ratios, scored_values
from .predictions import write_overlays
from .records import Evaluation, EvaluationMeta, read_evaluation
from .runs import EvaluatedRuns, evaluate_runs
from .score_run import evaluate

__all__ = [
    "METRICS",
    "EvaluatedRuns",
    "Evaluation",
    "EvaluationMeta",
    "Metric",
    "comparable",
    "cup_to_disc_ratios",
    "evaluate",
    "evaluate_runs",
    "external_evaluations",
    "measure_kernels",
    "read_evaluation",
    "score_masks",
    "scored_values",
    "write_overlays",
]
