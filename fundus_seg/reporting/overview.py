"""What `benchmark --dry-run` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fundus_seg.experiments.estimate import epoch_seconds, estimate
from fundus_seg.experiments.grid_run import Cell, failure, status
from fundus_seg.reporting.table import Table


def overview(cells: Sequence[Cell], jobs: int, *, retry_failed: bool = False) -> Table:
    """Every cell of a grid and where it stands; the notes say what the rest will cost.

    Args:
        cells: in the order in which they are worked on.
        jobs: how many at a time, at most.
        retry_failed: whether those that failed are left to do.
    """
    standing = [status(cell) for cell in cells]
    rows = tuple(
        (
            *(cell.config.holdout, cell.folder.path.parent.name, str(cell.config.seed), state),
            f"{len(epoch_seconds(cell.folder))}/{cell.config.train.epochs}",
            failure(cell) if state == "failed" else "",
        )
        for cell, state in zip(cells, standing, strict=True)
    )
    counts = ", ".join(f"{count} {state}" for state, count in Counter(standing).items())
    passed = {"done"} if retry_failed else {"done", "failed"}
    todo = [cell for cell, state in zip(cells, standing, strict=True) if state not in passed]
    return Table(
        f"{len(cells)} runs: {counts}",
        ("unseen", "operator", "seed"),
        ("status", "epochs", "reason"),
        rows,
        _cost(cells, todo, jobs),
    )


def _cost(cells: Sequence[Cell], todo: Sequence[Cell], jobs: int) -> tuple[str, ...]:
    """What is left to do, or that nothing is known of it."""
    if not todo:
        return ("nothing left to run",)
    cost = estimate(cells, todo)
    jobs = min(jobs, len(todo))
    known = (
        f"{cost.cells} runs left: about {_duration(cost.seconds / jobs)} of training with {jobs} at a time, "
        f"{cost.bytes / 1e9:.2g} GB on disk; each the mean of the finished runs of its operator, evaluation not counted"
    )
    unknown = f"no finished run of {', '.join(cost.unknown)} to estimate from" + ", left out" * bool(cost.seconds)
    return tuple([known] * bool(cost.seconds) + [unknown] * bool(cost.unknown))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes else f"{seconds:.0f} s"
