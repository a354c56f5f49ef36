"""The shards of `predict` on a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_seg.data.names import name_of
from fundus_seg.errors import (
    BusyError,
    DataError,
    FundusSegError,
    Problem,
    RunError,
    counted,
    one_line,
)
from fundus_seg.experiments.executors import RETRIES
from fundus_seg.experiments.ray_cluster import (
    LOOK,
    as_they_end,
    connected,
    ending_without,
    fitting_nodes,
    outcome_of,
    ray_module,
    survey,
    token_in,
)
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.job import PredictionJob
from fundus_seg.inference.shards import Shard
from fundus_seg.plugins import load
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs import lease

_SHARDS_PER_SLOT = 4
"""Shards for each that is done at a time: the last ones to end then leave little time idle."""
_LEAST_IN_SHARD = 100
"""Photographs of a shard, if there are more shards than are done at a time: each loads the model."""


def predict_on_ray(
    model: Path | Sequence[Path],
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
        model: as in `predict_folder`.
        images: photographs, and folders of photographs.
        out: the folder to write to.
        address: the address of the cluster, as in `ray_executor`.
        gpus: the share of a GPU for each shard at work; 0 for the CPU.
        truth: true masks, as in `predict_folder`.
        trust: operators of your own that the workers import (`plugins.load`).
        progress: gets what `predict_folder` tells.
        options: further arguments of `predict_folder`.

    Returns:
        The path of the table.

    Raises:
        UsageError: Ray is not installed.
        RunError: a node does not see a path or cannot write to `out`; shards have failed; or a node has other files at
            the path of a photograph. What is sound is done in any case, and the same command goes on.
        FundusSegError: as `predict_folder`.
    """
    ray = ray_module()
    models = [path.absolute() for path in ([model] if isinstance(model, Path) else model)]
    arguments = {
        "model": models,
        "images": [path.absolute() for path in images],
        "out": out.absolute(),
        "truth": [str(Path(place).absolute()) for place in truth],
        **options,
    }
    job = PredictionJob.of(**arguments, progress=progress)
    roots = {str(path) for path in (*models, *arguments["images"])}
    with connected(ray, address), contextlib.ExitStack() as at_work:
        token = at_work.enter_context(token_in(arguments["out"]))
        nodes = fitting_nodes(ray, 1, gpus)
        if unseen := survey(ray, nodes, token, roots):
            raise RunError(f"{min(unseen)}: some node does not see it; put it on a path that all nodes share")
        slots = sum(_slots(node["Resources"], gpus) for node in nodes)
        count = min(len(job.given), max(slots, min(_SHARDS_PER_SLOT * slots, len(job.given) // _LEAST_IN_SHARD)))
        shards = [Shard(number, count) for number in range(1, count + 1)]
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_predict_shard)
        waiting = {task.remote(arguments, each, trust, token): each for each in shards}
        ends: dict[Shard, _ShardEnd] = {}
        try:
            with progress.task("predicting shards", total=count) as advance:
                for shard, ended in as_they_end(ray, waiting, at_work):
                    try:
                        ends[shard] = ray.get(ended)
                    except ray.exceptions.RayError:
                        ends[shard] = _ShardEnd(failure=outcome_of(ray, ended).reason)
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
    table = job.table_in_form()
    job.refuse_unusable(done)
    return table


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
    if not ray_module().get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    node = socket.gethostname()
    limit = time.monotonic() + 2 * lease.PATIENCE  # the worker before this one may have been lost with its lease
    with ending_without(token):
        while True:
            try:
                for name in trust:
                    load(name)
                predict_folder(**arguments, shard=shard, cores=1)
            except BusyError as error:
                if time.monotonic() > limit:
                    return _ShardEnd(node, failure=f"node {node}: {error}")
                time.sleep(LOOK)
            except DataError as error:
                return _ShardEnd(node, error.problems)
            except FundusSegError as error:
                return _ShardEnd(node, failure=f"node {node}: {one_line(error)}")
            else:
                return _ShardEnd(node)


def _slots(resources: dict[str, float], gpus: float) -> int:
    """How many shards a node with these resources does at a time."""
    return int(min(resources["CPU"], resources["GPU"] / gpus if gpus else resources["CPU"]))
