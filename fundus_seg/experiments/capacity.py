"""How many runs fit onto this machine at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fundus_seg.experiments.cell import Cell

_CONTEXT_BYTES = 1.5e9
_BYTES_PER_PIXEL = 4000
"""Of training, for each pixel of a batch: the activations that MobileNetV2 and the ASPP keep for the way back, in
float32. An upper estimate, so that one run more never takes the memory of the others."""


def gpu_count() -> int:
    """The GPUs that torch may use here."""
    import torch

    return torch.cuda.device_count()


def default_jobs(cells: Sequence[Cell], gpus: int) -> int:
    """As many runs as cores allow at the threads of each; on GPUs, no more than their free memory allows besides."""
    threads = max((cell.config.train.threads or 1 for cell in cells), default=1)
    by_cores = max(1, (os.cpu_count() or 1) // threads)
    if not gpus:
        return by_cores
    largest = max(map(_gpu_bytes, cells), default=_CONTEXT_BYTES)
    fitting = sum(max(1, int(_free_bytes(gpu) // largest)) for gpu in range(gpus))
    return min(by_cores, fitting)


def _gpu_bytes(cell: Cell) -> float:
    config = cell.config
    cases = config.train.batch_per_domain * len(config.data.sources or ())
    return _CONTEXT_BYTES + cases * config.data.size**2 * _BYTES_PER_PIXEL


def _free_bytes(gpu: int) -> int:
    import torch

    return torch.cuda.mem_get_info(gpu)[0]
