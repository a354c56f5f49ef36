"""From trained runs, or the masks of any tool, to case records. Reading records imports no torch."""

from typing import TYPE_CHECKING

from fundus_seg.lazy import lazy_exports

if TYPE_CHECKING:
    from fundus_seg.evaluation.external import comparable, external_evaluations, score_masks
    from fundus_seg.evaluation.metric_table import METRICS, Metric
    from fundus_seg.evaluation.policy import cup_to_disc_ratios, scored_values
    from fundus_seg.evaluation.predictions import write_overlays
    from fundus_seg.evaluation.records import Evaluation, EvaluationMeta, read_evaluation
    from fundus_seg.evaluation.runs import EvaluatedRuns, evaluate_runs
    from fundus_seg.evaluation.score_run import evaluate

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
    "read_evaluation",
    "score_masks",
    "scored_values",
    "write_overlays",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "METRICS": "metric_table",
        "EvaluatedRuns": "runs",
        "Evaluation": "records",
        "EvaluationMeta": "records",
        "Metric": "metric_table",
        "comparable": "external",
        "cup_to_disc_ratios": "policy",
        "evaluate": "score_run",
        "evaluate_runs": "runs",
        "external_evaluations": "external",
        "read_evaluation": "records",
        "score_masks": "external",
        "scored_values": "policy",
        "write_overlays": "predictions",
    },
)
