"""The runs of an experiment and where each stands: what `benchmark --dry-run` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from fundus_seg.config.describe import as_yaml
from fundus_seg.errors import counted
from fundus_seg.experiments.estimate import epoch_seconds, estimate
from fundus_seg.experiments.grid_run import GridRun, failure_reason, status
from fundus_seg.reporting.table import Report, Table


def overview_table(runs: Sequence[GridRun], jobs: int, *, retry_failed: bool = False) -> Report:
    """Every run of an experiment and where it stands; the notes say what is left to do and what it will cost.

    The notes also say how the settings of all runs differ from the preset.

    The frame has one row per run: holdout, column (its label), operator, recipe, preset, seed, status, the epochs that
    are done, those that there are in all, and why the run failed.

    Args:
        runs: the runs in the order in which they are worked on.
        jobs: how many runs are trained at a time, at most.
        retry_failed: whether failed runs will be taken up again.
    """
    rows = []
    texts = []
    left = []
    for run in runs:
        state, epochs = status(run), len(epoch_seconds(run.folder))
        row = {
            "holdout": run.config.holdout,
            "column": run.label,
            "operator": run.config.operator,
            "recipe": run.recipe,
            "preset": run.config.preset,
            "seed": run.config.seed,
            "status": state,
            "epochs": epochs,
            "all_epochs": run.config.train.epochs,
            "reason": failure_reason(run) if state == "failed" else "",
        }
        rows.append(row)
        progress = f"{epochs}/{run.config.train.epochs}"
        texts.append((run.config.holdout, run.label, str(run.config.seed), state, progress, str(row["reason"])))
        if state != "done" and (retry_failed or state != "failed"):
            left.append(run)
    counts = ", ".join(f"{count} {state}" for state, count in Counter(row["status"] for row in rows).items())
    labels, columns = ("unseen", "column", "seed"), ("status", "epochs", "reason")
    notes = (*_common(runs), *_cost(runs, left, jobs))
    layout = Table(f"{counted(len(runs), 'run')}: {counts}", labels, columns, tuple(texts), notes)
    return Report(pd.DataFrame(rows), layout)


def _common(runs: Sequence[GridRun]) -> tuple[str, ...]:
    """A line for the settings that all runs have and the preset has not, if there are any."""
    own = [run.config.differences(all_domains=(*run.config.unseen, *run.config.data.sources)) for run in runs]
    shared = [f"{key}={as_yaml(own[0][key])}" for key in own[0] if all(each.get(key) == own[0][key] for each in own)]
    return (f"settings of all runs that differ from their preset: {', '.join(shared)}",) if shared else ()


def _cost(runs: Sequence[GridRun], left: Sequence[GridRun], jobs: int) -> tuple[str, ...]:
    """What the runs that are left will cost, and for which operators that cannot be estimated."""
    if not left:
        return ("nothing left to run",)
    cost = estimate(runs, left)
    jobs = min(jobs, len(left))
    notes = []
    if cost.seconds:
        notes.append(
            f"{counted(cost.runs, 'run')} left: about {_duration(cost.seconds / jobs)} of training with {jobs} at a "
            f"time, {cost.bytes / 1e9:.2g} GB on disk; each run is estimated by the mean of the finished runs of its "
            "column, without its evaluation"
        )
    if cost.unknown:
        left_out = ", left out" if cost.seconds else ""
        notes.append(f"no finished run of {', '.join(cost.unknown)} to estimate from{left_out}")
    return tuple(notes)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes else f"{seconds:.0f} s"
