"""Kernels kept between passes, one for each form that a map asks for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Size = tuple[int, int]
Form = tuple[Size, torch.dtype, bool]
"""The size (h, w) of a map, its dtype, and whether it lies channels last."""


@dataclass(frozen=True)
class KernelCache:
    """Kernels by their form, all made from one state of a module's parameters."""

    parameters: tuple[nn.Parameter, ...]  # kept alive, so that none of a later set can be taken for one of these
    versions: tuple[int, ...]
    kernels: dict[Form, Tensor] = field(default_factory=dict)  # the least recently used first
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, parameters: tuple[nn.Parameter, ...]) -> KernelCache:
        """An empty cache for kernels made from these parameters as they are now."""
        return cls(parameters, tuple(p._version for p in parameters))

    def made_from(self, parameters: tuple[nn.Parameter, ...]) -> bool:
        """Whether these are the very parameters of the kernels, not written to since."""
        return len(parameters) == len(self.parameters) and all(
            p is q and p._version == version
            for p, q, version in zip(parameters, self.parameters, self.versions, strict=True)
        )

    def get(self, form: Form) -> Tensor | None:
        """The kernel of this form, henceforth the most recently used; None if there is none."""
        with self.lock:
            kernel = self.kernels.pop(form, None)
            if kernel is not None:
                self.kernels[form] = kernel
            return kernel

    def keep(self, form: Form, kernel: Tensor, *, at_most: int) -> None:
        """Keep a kernel; the least recently used go until all take `at_most` bytes, or until it alone is left."""
        with self.lock:
            self.kernels[form] = kernel
            while len(self.kernels) > 1 and sum(each.nbytes for each in self.kernels.values()) > at_most:
                del self.kernels[next(iter(self.kernels))]
