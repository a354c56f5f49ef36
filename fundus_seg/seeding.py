"""Random numbers that depend on seed, epoch and purpose alone, so that a run can stop and resume anywhere."""

from __future__ import annotations

import contextlib
import os
import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np


def generator(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    """A NumPy generator for one purpose (`"batches/B"`, say) in one epoch of one run, independent of all others."""
    return np.random.default_rng([seed, epoch, zlib.crc32(purpose.encode())])


@contextlib.contextmanager
def seeded(seed: int, epoch: int, purpose: str) -> Iterator[None]:
    """Seed torch, NumPy's and Python's global generators as `generator` does; restore the caller's state on leaving.

    Within it dropout, initialisation and any library that draws from a global generator repeat to the bit.
    """
    import torch

    number = int(generator(seed, epoch, purpose).integers(2**63))
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(number)
        np.random.seed(number % 2**32)
        random.seed(number)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextlib.contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Use deterministic kernels and so many CPU threads within; restore the caller's settings on leaving.

    New memory is not filled: it would only expose kernels that read memory before they write it, and costs a write.
    """
    import torch

    threads_before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS needs it
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = fills
