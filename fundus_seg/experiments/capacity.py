"""How many runs fit onto this machine at a time, and on which of its GPUs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from fundus_seg.cores import core_count
from fundus_seg.experiments.grid_run import Cell

_BASE_BYTES = 2e9
"""Of a run, whatever its batch: libraries, the context of a GPU, weights and Adam's means, the photographs there."""
_BYTES_PER_PIXEL = 85 * 2**20 / 256**2
"""Of training, for each pixel of a batch: the tensors of depthwise, the largest that docs/scaling.md has measured."""
_MEMINFO = Path("/proc/meminfo")


def gpu_count() -> int:
    """The GPUs that torch may use here."""
    import torch

    return torch.cuda.device_count()


def worker_slots(cells: Sequence[Cell], gpus: int, jobs: int | None = None) -> list[int | None]:
    """The GPU of each worker process, None for the CPU; the first of them are spread as evenly as all.

    Args:
        cells: of which any may be at work beside any other.
        gpus: of this machine; 0 for the CPU.
        jobs: how many workers; None for as many as cores, at the threads of each, and free memory allow, one at least.
    """
    free: dict[int | None, float] = {gpu: _gpu_bytes(gpu) for gpu in range(gpus)} or {None: _memory_bytes()}
    need = max(map(run_bytes, cells))
    most = max(1, core_count() // max(cell.threads for cell in cells))
    fitting = sum(int(min(most, room / need)) for room in free.values())
    slots = []
    for _ in range(jobs or max(1, min(most, fitting))):
        roomiest = max(free, key=free.__getitem__)
        free[roomiest] -= need
        slots.append(roomiest)
    return slots


def run_bytes(cell: Cell) -> float:
    """The memory that a cell needs while it trains, on the GPU or else of the machine; an upper estimate."""
    config = cell.config
    cases = config.train.batch_per_domain * len(config.data.sources)
    return _BASE_BYTES + cases * config.data.size**2 * _BYTES_PER_PIXEL


def _gpu_bytes(gpu: int) -> float:
    import torch

    return torch.cuda.mem_get_info(gpu)[0]


def _memory_bytes() -> float:
    """What programs may still take of the machine's memory; infinite where the system does not tell."""
    try:
        available = re.search(r"^MemAvailable: *(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        available = None
    return int(available[1]) * 1024 if available else math.inf
