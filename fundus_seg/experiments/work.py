"""The work on one cell of a grid: train, then evaluate."""

from __future__ import annotations

import traceback

from fundus_seg.data.layout import open_root
from fundus_seg.errors import BusyError, FundusSegError, LeaseLostError, one_line
from fundus_seg.evaluation.evaluate import evaluate
from fundus_seg.experiments.grid_run import Cell, Outcome, failed, settled
from fundus_seg.training import train


def run_cell(cell: Cell) -> Outcome:
    """Train the run, or go on with it, then evaluate `best`; no exception leaves it, whatever is wrong."""
    if outcome := settled(cell):
        return outcome
    try:
        root = open_root(cell.data)
        run = train(cell.config, root, cell.out, probe=cell.probe)
        evaluate(run, cell.data)
    except (BusyError, LeaseLostError) as error:
        return Outcome("busy", str(error))
    except FundusSegError as error:
        return failed(error)
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {one_line(error)}", traceback.format_exc())
    return Outcome("done")
