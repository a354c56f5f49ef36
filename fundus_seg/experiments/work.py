"""The work on one run of an experiment: train it, then evaluate it."""

from __future__ import annotations

import traceback

from fundus_seg.data.layout import open_root
from fundus_seg.errors import BusyError, FundusSegError, LeaseLostError, one_line
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.experiments.grid_run import GridRun, Outcome, settled
from fundus_seg.training import train


def complete_run(run: GridRun) -> Outcome:
    """Train the run, or go on with it, then evaluate `best`. Every exception becomes an outcome."""
    if outcome := settled(run):
        return outcome
    try:
        root = open_root(run.data)
        folder = train(run.config, root, run.out, probe=run.probe)
        evaluate(folder, run.data)
    except (BusyError, LeaseLostError) as error:
        return Outcome("busy", str(error))
    except FundusSegError as error:
        return Outcome.of_error(error)
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {one_line(error)}", traceback.format_exc())
    return Outcome("done")
