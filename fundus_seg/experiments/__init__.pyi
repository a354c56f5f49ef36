from .executors import ExecutorName, choose_executor
from .experiment import Failure, Result, run_experiment
from .grid_run import GridRun, Outcome
from .leave_one_out import plan

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
