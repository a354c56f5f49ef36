"""A Ray cluster: the connection, its nodes, and tasks that end when they are no longer wanted.

While something is at work, a file stands in its folder. A worker that no longer sees it ends: Ray may lose the
cancellation of a task that is on its way to a worker, and would leave the worker at its work.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_seg.errors import RunError, UsageError, counted, one_line
from fundus_seg.experiments.executors import RETRIES

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import Outcome


_CANCEL = 2.0
"""Seconds after which the cancellation of a run that has not ended is repeated."""
_PATIENCE = 120.0
"""Seconds after which a run that has been cancelled and does not end is given up."""
LOOK = 1.0
"""Seconds between two looks of a worker at the file that tells it to go on."""


def as_they_end(ray: Any, waiting: dict[Any, Any], at_work: contextlib.ExitStack) -> Iterator[tuple[Any, Any]]:
    """Each thing that is waited for, with its reference, as it ends. Who stops early cancels what is left.

    Args:
        ray: the module.
        waiting: the things, which have a `name`, by the references of their tasks.
        at_work: is closed at the end, which takes the tokens away.
    """
    try:
        while waiting:
            (ended,), _ = ray.wait(list(waiting))
            yield waiting.pop(ended), ended
    finally:
        at_work.close()  # tells the workers to end
        _cancel(ray, waiting)


def _cancel(ray: Any, waiting: dict[Any, Any]) -> None:
    """Cancel runs until all have ended.

    Raises:
        RunError: some have not ended after `_PATIENCE`.
    """
    limit = time.monotonic() + _PATIENCE
    while waiting:
        for left in waiting:
            ray.cancel(left, force=True)
        for ended in ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL)[0]:
            del waiting[ended]
        if waiting and time.monotonic() > limit:
            names = ", ".join(run.name for run in waiting.values())
            raise RunError(
                f"the Ray cluster has not ended {counted(len(waiting), 'cancelled run')} in {_PATIENCE:g} s ({names}); "
                "cores may still be taken: look with `ray status`, end them with `ray stop --force`"
            )


@contextlib.contextmanager
def token_in(out: Path) -> Iterator[Path]:
    """A new file in the folder of runs, which is gone afterwards."""
    token = out / f".seen-{uuid.uuid4().hex}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def ray_module() -> Any:
    """The module `ray`, with usage reports off.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # usage reports must not leave a hospital's machine
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UsageError("the executor ray needs Ray: pip install 'fundus-seg[ray]'") from error
    return ray


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to the cluster. If the caller has already made one, that is used, and left open."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"no Ray cluster at {address or 'hand'} ({reason}); start one with `ray start --head`"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def fitting_nodes(ray: Any, cpus: float, gpus: float) -> list[dict[str, Any]]:
    """The nodes that have enough CPUs and GPUs for a run."""
    needs = {"CPU": cpus, "GPU": gpus}
    nodes = [
        node
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(kind, 0) >= amount for kind, amount in needs.items())
    ]
    if not nodes:
        raise RunError(f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs for a run; ask for less")
    return nodes


def survey(ray: Any, nodes: Sequence[dict[str, Any]], token: Path, roots: set[str]) -> set[str]:
    """The paths of `roots` that some node does not see. Raises a RunError if a node cannot write beside the token."""
    out = token.parent
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = ray.remote(num_cpus=0)(_look)
    lacking = set()
    views = [
        look.options(scheduling_strategy=pinned(node["NodeID"], soft=False)).remote(token, roots) for node in nodes
    ]
    for node, view in zip(nodes, views, strict=True):
        name = node["NodeManagerHostname"]
        try:
            writable, missing = ray.get(view)
        except ray.exceptions.RayError as error:
            raise RunError(
                f"node {name}: cannot look at {out} ({type(error).__name__}); install this fundus-seg there"
            ) from error
        if not writable:
            raise RunError(f"{out}: node {name} cannot write there; put --out on a path that all nodes share")
        lacking |= missing
    return lacking


def _look(token: Path, roots: set[str]) -> tuple[bool, set[str]]:
    """Runs on a node: whether the node may write beside `token`, and the paths that it does not see."""
    writable = False
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=token.parent):
        writable = token.exists()
    return writable, {root for root in roots if not Path(root).exists()}


@contextlib.contextmanager
def ending_without(token: Path) -> Iterator[None]:
    """Within it this process ends when the token is gone."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            with contextlib.suppress(OSError):  # a file system that does not answer says nothing
                if not token.exists():
                    os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def outcome_of(ray: Any, ended: Any) -> Outcome:
    """What a task has come to, by its reference; a failure where it raised, or its worker died."""
    from fundus_seg.experiments.grid_run import Outcome

    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        return Outcome("failed", f"{type(error.cause).__name__}: {one_line(error.cause)}", str(error))
    except ray.exceptions.RayError as error:
        reason = f"its worker or node died {RETRIES + 1} times ({type(error).__name__}); does it have enough memory?"
        return Outcome("failed", reason, str(error))
