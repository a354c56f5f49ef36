"""What `benchmark --dry-run` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fundus_seg.experiments.estimate import epoch_seconds, estimate
from fundus_seg.experiments.grid_run import GridRun, failure_reason, status
from fundus_seg.reporting.table import Table


def overview(runs: Sequence[GridRun], jobs: int, *, retry_failed: bool = False) -> Table:
    """Every run of an experiment and where it stands; the notes say what the rest will cost.

    Args:
        runs: the runs in the order in which they are worked on.
        jobs: how many runs are trained at a time, at most.
        retry_failed: whether failed runs will be taken up again.
    """
    states = [status(run) for run in runs]
    rows = tuple(
        (
            run.config.holdout,
            run.folder.path.parent.name,
            str(run.config.seed),
            state,
            f"{len(epoch_seconds(run.folder))}/{run.config.train.epochs}",
            failure_reason(run) if state == "failed" else "",
        )
        for run, state in zip(runs, states, strict=True)
    )
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states).items())
    skipped = {"done"} if retry_failed else {"done", "failed"}
    left = [run for run, state in zip(runs, states, strict=True) if state not in skipped]
    return Table(
        f"{len(runs)} runs: {counts}",
        ("unseen", "operator", "seed"),
        ("status", "epochs", "reason"),
        rows,
        _cost(runs, left, jobs),
    )


def _cost(runs: Sequence[GridRun], left: Sequence[GridRun], jobs: int) -> tuple[str, ...]:
    """What the runs that are left will cost, and for which operators that cannot be estimated."""
    if not left:
        return ("nothing left to run",)
    cost = estimate(runs, left)
    at_once = min(jobs, len(left))
    notes = []
    if cost.seconds:
        notes.append(
            f"{cost.runs} runs left: about {_duration(cost.seconds / at_once)} of training with {at_once} at a time, "
            f"{cost.bytes / 1e9:.2g} GB on disk; each run is estimated by the mean of the finished runs of its "
            "operator, without its evaluation"
        )
    if cost.unknown:
        left_out = ", left out" if cost.seconds else ""
        notes.append(f"no finished run of {', '.join(cost.unknown)} to estimate from{left_out}")
    return tuple(notes)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes else f"{seconds:.0f} s"
