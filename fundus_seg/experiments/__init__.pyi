from .costs import measure_costs
from .executors import ExecutorName, choose_executor
from .experiment import Failure, Result, run_experiment
from .grid_run import GridRun, Outcome
from .leave_one_out import plan
from .suites import Setup, Suite, read_suite

__all__ = [
    "ExecutorName",
    "Failure",
    "GridRun",
    "Outcome",
    "Result",
    "Setup",
    "Suite",
    "choose_executor",
    "measure_costs",
    "plan",
    "read_suite",
    "run_experiment",
]
