"""The runs of an experiment on a Ray cluster.

Ray queues the runs, gives each its share of a GPU, and starts a run again whose worker or node died. On CPUs the
workers stay warm from one run to the next; on GPUs each run begins in a fresh one, since Ray binds a worker to its GPU.
Every node must see the folder of runs: a run then goes on after its last save, on whichever node. The photographs may
lie on such a path too; a node that does not see them gets them once, into its cache. On each node the photographs of a
run are compared with those here before it trains.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_seg.data.cache import split_digest
from fundus_seg.data.files import SPLITS, Split
from fundus_seg.data.layout import PHANTOM, DataRoot, open_root
from fundus_seg.data.shipping import pack, unpack, unpacked
from fundus_seg.digests import short_hash
from fundus_seg.errors import (
    FundusSegError,
)
from fundus_seg.experiments.executors import RETRIES, Executor, Work
from fundus_seg.experiments.ray_cluster import (
    as_they_end,
    connected,
    ending_without,
    fitting_nodes,
    outcome_of,
    ray_module,
    survey,
    token_in,
)

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import GridRun, Outcome


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
    ray = ray_module()

    def execute(work: Work, runs: Sequence[GridRun]) -> Iterator[tuple[GridRun, Outcome]]:
        with connected(ray, address):
            nodes = fitting_nodes(ray, cpus, gpus)
            with contextlib.ExitStack() as at_work:
                tokens = {out: at_work.enter_context(token_in(out)) for out in {run.out for run in runs}}
                roots = {run.data for run in runs} - {PHANTOM}  # every node draws the phantom by itself
                lacking = {data for token in tokens.values() for data in survey(ray, nodes, token, roots)}
                parcels = {data: _sent(ray, data) for data in sorted(lacking)}
                digests = _digests(runs)
                task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_work_on)
                waiting = {
                    task.remote(work, run, parcels.get(run.data), digests[run], tokens[run.out]): run for run in runs
                }
                for run, ended in as_they_end(ray, waiting, at_work):
                    yield run, outcome_of(ray, ended)

    return execute


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

    ray = ray_module()
    if not ray.get_gpu_ids():  # Ray hides no GPU from a task that asked for none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if sent is not None and not Path(run.data).exists():
        data = unpacked(sent.digest, sent.entry) or unpack(ray.get(sent.parcel))
        run = replace(run, data=str(data))
    with ending_without(token):
        try:
            there = _digest(run, open_root(run.data))
        except FundusSegError as error:
            return Outcome.of_error(error)
        if there != digest:
            node = socket.gethostname()
            reason = f"{run.data}: node {node} has other photographs there (digest {there}, {digest} is wanted)"
            return Outcome("failed", f"{reason}; make them alike, or take the path away, and they are sent")
        return work(run)
