"""Where a run computes: Lightning Fabric on one device, or on several that share every batch.

With `train.devices` above 1, the process that trains starts one more for each further device. All of them draw the same
batches, each computes its slice, and DistributedDataParallel averages the gradients. Batch norms see one slice each.
The first process alone validates, selects and writes, so the running statistics that count are those of its slices.

Fabric's own launchers would run the caller's script again, or leave the calling process, which holds the lease, the
observers and the progress bar, waiting beside the run.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

from fundus_seg.builtins import Precision
from fundus_seg.config import ResolvedTrain
from fundus_seg.errors import RunError, UsageError
from fundus_seg.processes import environment, start
from fundus_seg.torchvision_compat import import_module

_PRECISIONS: dict[Precision, str] = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Fabric's names for the values of `train.precision`."""
_GRACE = 5.0
"""Seconds that a process is given to end after its work is done or its connection broke."""


@contextlib.contextmanager
def fabric_for(train: ResolvedTrain, assist: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """Fabric on the run's device, or on the first of several; the processes of the others end with the context.

    Args:
        train: settings, nothing left open.
        assist: function that each further process calls with its own Fabric and `arguments`; pickled by name.
        arguments: picklable values.

    Raises:
        UsageError: fewer GPUs than devices, or the calling process may start no other.
        RunError: a further process has ended too early.
    """
    if train.devices == 1:
        yield _fabric(train)
        return
    if torch.cuda.is_available() and torch.cuda.device_count() < train.devices:
        raise UsageError(
            f"train.devices {train.devices}: only {torch.cuda.device_count()} GPUs here; choose at most that"
        )
    if multiprocessing.current_process().daemon:
        raise UsageError(
            f"train.devices {train.devices}: a worker starts no processes; take the executor serial or ray"
        )
    context = multiprocessing.get_context("spawn")  # a fork would share what CUDA and thread pools cannot share
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(train.devices)}
    places = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(train.devices)]
    assistants, signals = [], []
    try:
        for place in places[1:]:
            signal_end, other_end = context.Pipe(duplex=False)
            process = context.Process(target=_join, args=(other_end, place, train, assist, arguments), daemon=True)
            start(process)
            other_end.close()
            assistants.append(process)
            signals.append(signal_end)
        for signal_end in signals:
            signal_end.recv()  # before all are up, a death would go unnoticed until the group's timeout
        with environment(places[0]):
            fabric = _fabric(train)
            fabric.launch()
            yield fabric
        for process in assistants:
            process.join(_GRACE)
    except (EOFError, RuntimeError) as error:  # RuntimeError: torch's, of a broken connection among others
        if not multiprocessing.connection.wait([process.sentinel for process in assistants], timeout=_GRACE):
            raise
        raise RunError(
            f"one of the {train.devices} processes of the run has ended, see above; the same command goes on with it"
        ) from error
    finally:
        for process in assistants:
            process.terminate()
            process.join()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _join(ready: Connection, place: Mapping[str, str], train: ResolvedTrain, assist: Any, arguments: Any) -> None:
    """The life of a further process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process handles it, and ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(place)
    fabric = _fabric(train)
    ready.send(None)
    fabric.launch()
    assist(fabric, *arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the main thread may wait within torch for the first process, which was killed


def _fabric(train: ResolvedTrain) -> Any:
    fabric = import_module("lightning.fabric")
    for speaker in ("lightning.fabric", "lightning.pytorch"):  # the precision stands in the run's settings
        logging.getLogger(speaker).setLevel(logging.WARNING)
    precision = _PRECISIONS[train.precision]
    environments = import_module("lightning.fabric.plugins.environments")
    if train.devices == 1:
        # Named, since Lightning would look for a cluster around it and refuse, say, a SLURM job of several tasks. From
        # there it also takes a rank for the process, and its loggers are silent in all but the first.
        import_module("lightning.fabric.utilities.rank_zero").rank_zero_only.rank = 0
        return fabric.Fabric(devices=1, precision=precision, plugins=[environments.LightningEnvironment()])
    # Buffers are each process's own: to broadcast them, the others would have to join in every validation.
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    broadcast = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    return fabric.Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=train.devices,
        strategy=import_module("lightning.fabric.strategies").DDPStrategy(**{broadcast: False}),
        plugins=[environments.TorchElasticEnvironment()],
        precision=precision,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
