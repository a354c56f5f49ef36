"""Kernels kept between passes, one for each size of map."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

Size = tuple[int, int]


@dataclass(frozen=True)
class KernelCache:
    """Kernels by the size of their map, all made from one state of a module's parameters."""

    parameters: tuple[nn.Parameter, ...]  # kept alive, so that none of a later set can be taken for one of these
    versions: tuple[int, ...]
    kernels: dict[Size, Tensor] = field(default_factory=dict)  # the least recently used first

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

    def get(self, size: Size) -> Tensor | None:
        """The kernel for maps of this size, henceforth the most recently used; None if there is none."""
        kernel = self.kernels.pop(size, None)
        if kernel is not None:
            self.kernels[size] = kernel
        return kernel

    def keep(self, size: Size, kernel: Tensor, *, at_most: int) -> None:
        """Keep a kernel; the least recently used go until all take `at_most` bytes, or until it alone is left."""
        self.kernels[size] = kernel
        while len(self.kernels) > 1 and sum(each.nbytes for each in self.kernels.values()) > at_most:
            del self.kernels[next(iter(self.kernels))]
