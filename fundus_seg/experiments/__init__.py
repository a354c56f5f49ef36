"""Many runs: which ones an experiment has, where each stands, and who works on them.

    runs = plan(open_root("phantom"), Path("runs"), ops=["conv", "tvconv"], seeds=range(3), config="demo")
    result = run_experiment(runs, choose_executor("serial", runs))

The exports are imported when they are asked for: a worker process chooses its GPU before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fundus_seg.lazy import lazy_exports

if TYPE_CHECKING:
    from fundus_seg.experiments.executors import ExecutorName, choose_executor
    from fundus_seg.experiments.experiment import Failure, Result, run_experiment
    from fundus_seg.experiments.grid_run import GridRun, Outcome
    from fundus_seg.experiments.leave_one_out import plan

__all__ = [
    "ExecutorName",
    "Failure",
    "GridRun",
    "Outcome",
    "Result",
    "choose_executor",
    "plan",
    "run_experiment",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ExecutorName": "executors",
        "Failure": "experiment",
        "GridRun": "grid_run",
        "Outcome": "grid_run",
        "Result": "experiment",
        "choose_executor": "executors",
        "plan": "leave_one_out",
        "run_experiment": "experiment",
    },
)
