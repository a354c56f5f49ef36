"""The runs of an experiment, and the shards of `predict`, on a Ray cluster.

Ray queues the runs, gives each its share of a GPU, and starts a run again whose worker or node died. On CPUs the
workers stay warm from one run to the next; on GPUs each run begins in a fresh one, since Ray binds a worker to its GPU.
Every node must see the folder of runs: a run then goes on after its last whole epoch, on whichever node. The
photographs may lie on such a path too; a node that does not see them gets them once, into its cache. On each node the
photographs of a run are compared with those here before it trains.

While the executor is at work, a file stands in each folder of runs. A worker that no longer sees it ends: Ray may lose
the cancellation of a run that is on its way to a worker, and would leave the worker at its work.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_seg.data.cache import split_digest
from fundus_seg.data.files import SPLITS, Split
from fundus_seg.data.layout import PHANTOM, DataRoot, open_root
from fundus_seg.data.names import name_of
from fundus_seg.data.shipping import pack, unpack, unpacked
from fundus_seg.digests import short_hash
from fundus_seg.errors import (
    BusyError,
    DataError,
    FundusSegError,
    Problem,
    RunError,
    UsageError,
    counted,
    one_line,
)
from fundus_seg.experiments.executors import RETRIES, Executor, Work
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.job import PredictionJob
from fundus_seg.inference.shards import Shard
from fundus_seg.plugins import load
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs import lease

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import GridRun, Outcome


_CANCEL = 2.0
"""Seconds after which the cancellation of a run that has not ended is repeated."""
_PATIENCE = 120.0
"""Seconds after which a run that has been cancelled and does not end is given up."""
_SHARDS_PER_SLOT = 4
"""Shards for each that is done at a time: the last ones to end then leave little time idle."""
_LEAST_IN_SHARD = 100
"""Photographs of a shard, if there are more shards than are done at a time: each loads the model."""
_LOOK = 1.0
"""Seconds between two looks of a worker at the file that tells it to go on."""


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
            with contextlib.ExitStack() as at_work:
                tokens = {out: at_work.enter_context(_token(out)) for out in {run.out for run in runs}}
                roots = {run.data for run in runs} - {PHANTOM}  # every node draws the phantom by itself
                lacking = {data for token in tokens.values() for data in _survey(ray, nodes, token, roots)}
                parcels = {data: _sent(ray, data) for data in sorted(lacking)}
                digests = _digests(runs)
                task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_work_on)
                waiting = {
                    task.remote(work, run, parcels.get(run.data), digests[run], tokens[run.out]): run for run in runs
                }
                for run, ended in _ended(ray, waiting, at_work):
                    yield run, _outcome(ray, ended)

    return execute


def predict_on_ray(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    address: str | None = None,
    gpus: float = 0,
    truth: Sequence[str] = (),
    trust: Sequence[str] = (),
    progress: Progress = SILENT,
    **options: Any,
) -> Path:
    """`predict_folder` on a Ray cluster, on whose nodes fundus-seg is installed: each task does a shard with one core.

    Every node must see the model, the photographs, the true masks and `out`, all at the same paths. When the shards are
    done, their tables are joined here, and the rows compared with the photographs as they are here.

    Tasks, and not Ray Data: what goes in and comes out are files on a path that all nodes share, so that nothing is
    left for Ray Data to move, and a shard already goes on where a lost worker left it.

    Args:
        model: folder of a run, or a checkpoint.
        images: photographs, and folders of photographs.
        out: the folder to write to.
        address: the address of the cluster, as in `ray_executor`.
        gpus: the share of a GPU for each shard at work; 0 for the CPU.
        truth: true masks, as in `predict_folder`.
        trust: operators of your own that the workers import (`plugins.load`).
        progress: gets what `predict_folder` tells.
        options: further arguments of `predict_folder`.

    Returns:
        The path of the CSV.

    Raises:
        UsageError: Ray is not installed.
        RunError: a node does not see a path or cannot write to `out`; shards have failed; or a node has other files at
            the path of a photograph. What is sound is done in any case, and the same command goes on.
        FundusSegError: as `predict_folder`.
    """
    ray = _ray()
    arguments = {
        "model": model.absolute(),
        "images": [path.absolute() for path in images],
        "out": out.absolute(),
        "truth": [str(Path(place).absolute()) for place in truth],
        **options,
    }
    job = PredictionJob.of(**arguments, progress=progress)
    roots = {str(path) for path in (model.absolute(), *arguments["images"])}
    with _connected(ray, address), contextlib.ExitStack() as at_work:
        token = at_work.enter_context(_token(arguments["out"]))
        nodes = _nodes(ray, 1, gpus)
        if unseen := _survey(ray, nodes, token, roots):
            raise RunError(f"{min(unseen)}: some node does not see it; put it on a path that all nodes share")
        slots = sum(_slots(node["Resources"], gpus) for node in nodes)
        count = min(len(job.given), max(slots, min(_SHARDS_PER_SLOT * slots, len(job.given) // _LEAST_IN_SHARD)))
        shards = [Shard(number, count) for number in range(1, count + 1)]
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_predict_shard)
        waiting = {task.remote(arguments, each, trust, token): each for each in shards}
        ends: dict[Shard, _ShardEnd] = {}
        try:
            with progress.task("predicting shards", total=count) as advance:
                for shard, ended in _ended(ray, waiting, at_work):
                    try:
                        ends[shard] = ray.get(ended)
                    except ray.exceptions.RayError:
                        ends[shard] = _ShardEnd(failure=_outcome(ray, ended).reason)
                    job.unusable.found += ends[shard].problems
                    advance()
        except (KeyboardInterrupt, SystemExit):
            progress.line(f"stopped: {len(ends)} of {counted(count, 'shard')} are done; the same command goes on")
            raise
    done, differing = job.collect(progress)
    if failed := {shard: end.failure for shard, end in ends.items() if end.failure}:
        first = min(failed, key=lambda shard: shard.number)
        raise RunError(
            f"{len(failed)} of {counted(count, 'shard')} failed, first {first.name}: {failed[first]}; "
            "the same command goes on with what is missing"
        )
    if differing:
        node = next(ends[shard].node for shard in shards if shard.holds(name_of(differing[0])))
        raise RunError(
            f"{counted(len(differing), 'photograph')} of other content on a node than here, first {differing[0]} on "
            f"{node}; make them alike, and give the command again: it does them anew"
        )
    job.refuse_unusable(done)
    return job.table.path


@dataclass(frozen=True)
class _ShardEnd:
    """How a shard ended.

    Attributes:
        node: where.
        problems: what is wrong with its photographs.
        failure: why it was not done; empty if it was.
    """

    node: str = ""
    problems: tuple[Problem, ...] = ()
    failure: str = ""


def _predict_shard(arguments: dict[str, Any], shard: Shard, trust: Sequence[str], token: Path) -> _ShardEnd:
    """Runs on a node: predict a shard, with one core.

    Args:
        arguments: those of `predict_folder`.
        shard: the shard.
        trust: operators to import.
        token: file without which the process ends.
    """
    if not _ray().get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    node = socket.gethostname()
    limit = time.monotonic() + 2 * lease.PATIENCE  # the worker before this one may have been lost with its lease
    with _ending_without(token):
        while True:
            try:
                for name in trust:
                    load(name)
                predict_folder(**arguments, shard=shard, cores=1)
            except BusyError as error:
                if time.monotonic() > limit:
                    return _ShardEnd(node, failure=f"node {node}: {error}")
                time.sleep(_LOOK)
            except DataError as error:
                return _ShardEnd(node, error.problems)
            except FundusSegError as error:
                return _ShardEnd(node, failure=f"node {node}: {one_line(error)}")
            else:
                return _ShardEnd(node)


def _slots(resources: dict[str, float], gpus: float) -> int:
    """How many shards a node with these resources does at a time."""
    return int(min(resources["CPU"], resources["GPU"] / gpus if gpus else resources["CPU"]))


def _ended(ray: Any, waiting: dict[Any, Any], at_work: contextlib.ExitStack) -> Iterator[tuple[Any, Any]]:
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
def _token(out: Path) -> Iterator[Path]:
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


def _digests(runs: Sequence[GridRun]) -> dict[GridRun, str]:
    """For each run the digest of the photographs and masks that it reads."""
    roots = {data: open_root(data) for data in {run.data for run in runs}}
    known: dict[object, str] = {}
    digests = {}
    for run in runs:
        key = (run.data, run.config.holdout, run.config.data.sources)
        known[key] = digests[run] = known.get(key) or _digest(run, roots[run.data])
    return digests


def _digest(run: GridRun, root: DataRoot) -> str:
    """The digest of the splits that a run reads, by their names and contents; where they lie does not matter."""
    sources, holdout = run.config.data.sources, run.config.holdout
    splits: list[tuple[str, Split]] = [(domain, split) for domain in sources for split in SPLITS]
    read = {f"{domain}/{split}": root.split(domain, split).cases for domain, split in (*splits, (holdout, "test"))}
    return short_hash({name: split_digest(cases) for name, cases in read.items()}, digits=16)


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


def _survey(ray: Any, nodes: Sequence[dict[str, Any]], token: Path, roots: set[str]) -> set[str]:
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


def _sent(ray: Any, data: str) -> _Sent:
    parcel = pack(open_root(data))
    return _Sent(parcel.digest, parcel.entry, ray.put(parcel))


def _work_on(work: Work, run: GridRun, sent: _Sent | None, digest: str, token: Path) -> Outcome:
    """Runs on a node: do the work, after fetching the photographs if the node neither sees nor has fetched them.

    Args:
        work: what to do with the run.
        run: the run.
        sent: its photographs, if some node does not see them.
        digest: `_digest` of the photographs that the run is to read; with others there is no work.
        token: file without which the process ends.
    """
    from fundus_seg.experiments.grid_run import Outcome

    ray = _ray()
    if not ray.get_gpu_ids():  # Ray hides no GPU from a task that asked for none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if sent is not None and not Path(run.data).exists():
        data = unpacked(sent.digest, sent.entry) or unpack(ray.get(sent.parcel))
        run = replace(run, data=str(data))
    with _ending_without(token):
        try:
            there = _digest(run, open_root(run.data))
        except FundusSegError as error:
            return Outcome.of_error(error)
        if there != digest:
            node = socket.gethostname()
            reason = f"{run.data}: node {node} has other photographs there (digest {there}, {digest} is wanted)"
            return Outcome("failed", f"{reason}; make them alike, or take the path away, and they are sent")
        return work(run)


@contextlib.contextmanager
def _ending_without(token: Path) -> Iterator[None]:
    """Within it this process ends when the token is gone."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK):
            with contextlib.suppress(OSError):  # a file system that does not answer says nothing
                if not token.exists():
                    os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _outcome(ray: Any, ended: Any) -> Outcome:
    from fundus_seg.experiments.grid_run import Outcome

    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        return Outcome("failed", f"{type(error.cause).__name__}: {one_line(error.cause)}", str(error))
    except ray.exceptions.RayError as error:
        reason = f"its worker or node died {RETRIES + 1} times ({type(error).__name__}); does it have enough memory?"
        return Outcome("failed", reason, str(error))
