"""The runs of an experiment on a Ray cluster.

Ray queues the runs, gives each its share of a GPU, and starts a run again whose worker or node died. On CPUs the
workers stay warm from one run to the next; on GPUs each run begins in a fresh one, since Ray binds a worker to its GPU.
Every node must see the folder of runs: a run then goes on after its last whole epoch, on whichever node. The
photographs may lie on such a path too; a node that does not see them gets them once, into its cache.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_seg.data.layout import PHANTOM, open_root
from fundus_seg.data.shipping import pack, unpack, unpacked
from fundus_seg.errors import RunError, UsageError, one_line
from fundus_seg.experiments.executors import RETRIES, Executor, Work

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import GridRun, Outcome


_CANCEL = 2.0
"""Seconds after which the cancellation of a run that has not ended is repeated."""


@dataclass(frozen=True)
class _Sent:
    """A parcel of photographs that was put into Ray's store.

    The reference is a field, not an argument of the task: Ray copies arguments to every node, whether it needs them.
    """

    digest: str
    entry: str
    parcel: Any


def ray_executor(*, address: str | None = None, cpus: float = 1, gpus: float = 0) -> Executor:
    """An executor on a Ray cluster, on whose nodes fundus-seg is installed.

    The executor raises a RunError when it begins, if a node does not see the folder of runs, or no node has enough CPUs
    and GPUs for a run.

    Args:
        address: the address of a running cluster, as `ray.init` takes it. None for $RAY_ADDRESS, or a cluster that was
            started on this machine, or a temporary one of this machine alone.
        cpus: the number of cores for each run.
        gpus: the share of a GPU for each run: with 0.25, four runs share one. 0 for the CPU.

    Raises:
        UsageError: Ray is not installed.
    """
    ray = _ray()

    def execute(work: Work, runs: Sequence[GridRun]) -> Iterator[tuple[GridRun, Outcome]]:
        with _connected(ray, address):
            nodes = _nodes(ray, cpus, gpus)
            lacking = {data for out in {run.out for run in runs} for data in _survey(ray, nodes, out, runs)}
            parcels = {data: _sent(ray, data) for data in sorted(lacking)}
            task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_work_on)
            waiting = {task.remote(work, run, parcels.get(run.data)): run for run in runs}
            try:
                while waiting:
                    (ended,), _ = ray.wait(list(waiting))
                    yield waiting.pop(ended), _outcome(ray, ended)
            finally:
                while waiting:  # Ray may lose a cancellation that meets a run on its way to a worker
                    for left in waiting:
                        ray.cancel(left, force=True)
                    for ended in ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL)[0]:
                        del waiting[ended]

    return execute


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # usage reports must not leave a hospital's machine
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UsageError("the executor ray needs Ray: pip install 'fundus-seg[ray]'") from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
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


def _nodes(ray: Any, cpus: float, gpus: float) -> list[dict[str, Any]]:
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


def _survey(ray: Any, nodes: Sequence[dict[str, Any]], out: Path, runs: Sequence[GridRun]) -> set[str]:
    """The data roots that some node does not see. Raises a RunError if a node cannot write to the folder of runs."""
    roots = {run.data for run in runs} - {PHANTOM}  # every node draws the phantom by itself
    out.mkdir(parents=True, exist_ok=True)
    token = out / f".seen-{uuid.uuid4().hex}"
    token.touch()
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = ray.remote(num_cpus=0)(_look)
    lacking = set()
    try:
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
    finally:
        token.unlink(missing_ok=True)
    return lacking


def _look(token: Path, roots: set[str]) -> tuple[bool, set[str]]:
    """Runs on a node: whether the node may write beside `token`, and the data roots that it does not see."""
    writable = False
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=token.parent):
        writable = token.exists()
    return writable, {root for root in roots if not Path(root).exists()}


def _sent(ray: Any, data: str) -> _Sent:
    parcel = pack(open_root(data))
    return _Sent(parcel.digest, parcel.entry, ray.put(parcel))


def _work_on(work: Work, run: GridRun, sent: _Sent | None) -> Outcome:
    """Runs on a node: do the work, after fetching the photographs if the node neither sees nor has fetched them."""
    ray = _ray()
    if not ray.get_gpu_ids():  # Ray hides no GPU from a task that asked for none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if sent is not None and not Path(run.data).exists():
        data = unpacked(sent.digest, sent.entry) or unpack(ray.get(sent.parcel))
        run = replace(run, data=str(data))
    return work(run)


def _outcome(ray: Any, ended: Any) -> Outcome:
    from fundus_seg.experiments.grid_run import Outcome

    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        return Outcome("failed", f"{type(error.cause).__name__}: {one_line(error.cause)}", str(error))
    except ray.exceptions.RayError as error:
        reason = f"its worker or node died {RETRIES + 1} times ({type(error).__name__}); does it have enough memory?"
        return Outcome("failed", reason, str(error))
