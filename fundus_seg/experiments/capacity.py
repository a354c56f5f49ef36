"""How many runs this machine can train at a time, and which of its GPUs each of them uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fundus_seg.container import memory_free
from fundus_seg.cores import core_count

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import GridRun

BASE_BYTES = 2e9
"""Memory of a run whatever its batch: libraries, the GPU's context, weights, Adam's means, the photographs."""
BYTES_PER_PIXEL = 85 * 2**20 / 256**2
"""Memory of training for each pixel of a batch: depthwise's tensors, the largest measured in docs/scaling.md."""


def gpu_count() -> int:
    """How many GPUs torch may use here."""
    import torch

    return torch.cuda.device_count()


def worker_slots(runs: Sequence[GridRun], gpus: int, jobs: int | None = None) -> list[int | None]:
    """The GPU of each worker process, None for the CPU. GPUs alternate, so that any prefix is balanced.

    Args:
        runs: any of them may be trained beside any other.
        gpus: the number of GPUs in this machine; 0 for the CPU.
        jobs: the number of workers; None for as many as the cores and the free memory allow, at least one.
    """
    free: dict[int | None, float] = {gpu: _gpu_bytes(gpu) for gpu in range(gpus)} or {None: memory_free()}
    need = max(map(run_bytes, runs))
    most = max(1, core_count() // max(run.threads for run in runs))
    fitting = sum(int(min(most, room / need)) for room in free.values())
    slots = []
    for _ in range(jobs or max(1, min(most, fitting))):
        roomiest = max(free, key=free.__getitem__)
        free[roomiest] -= need
        slots.append(roomiest)
    return slots


def run_bytes(run: GridRun) -> float:
    """An upper estimate of the memory that a run needs while it trains: the GPU's, or without one the machine's."""
    config = run.config
    cases = config.train.batch_per_domain * len(config.data.sources)
    return BASE_BYTES + cases * config.data.size**2 * BYTES_PER_PIXEL


def _gpu_bytes(gpu: int) -> float:
    import torch

    return torch.cuda.mem_get_info(gpu)[0]
