"""How much the kernels of an operator differ between positions, and by what: the measures, and their files.

W (C, k·k, h, w) are an operator's kernels, W̄ their mean over positions. With means over channels c and taps t,

    d(i, j) = sqrt(mean_ct (W[c, t, i, j] - W̄[c, t])²) / rms W      deviation of the kernel at a position
    spread  = sqrt(mean_ij d(i, j)²)                              spread² = 1 - (rms W̄ / rms W)²

so a depthwise convolution has a spread of 0, and kernels whose mean over positions is 0 have one of 1. It does not
depend on the scale of the kernels. The measure is this package's own.

In TVConv, position enters by three PARTS: the affinity maps A, the affines of the generator's layer norms, which have
a scale and a shift for each position, and the zero padding of the generator's convolutions. A spread is therefore
measured for each set of parts that keep their position, the others without: A and affines at their mean over positions,
padding by the nearest value. A part's share is its Shapley value of spread² (L. S. Shapley: A value for n-person games,
1953): what it adds, averaged over all orders in which the parts may be added. The shares sum to the spread² as learned.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.errors import RunError
from fundus_seg.runs.atomic import atomic_path
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import Column

PARTS = ("affinity", "affines", "padding")
"""How position enters the kernels of TVConv: the affinity maps, the norms' affines, the generator's zero padding."""
Parts = tuple[str, ...]
"""Some of PARTS, in their order."""
Floats = NDArray[np.float32]
_NOT_READ = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class LayerKernels:
    """What was measured of one operator.

    Attributes:
        name: its place in the network: `branch 6`, or the path of the module.
        parts: the parts of PARTS by which position enters; none for free kernels.
        deviations: d (h, w) for each subset of `parts`, the parts that keep their position.
        affinity: A (c_A, h, w); None for an operator without affinity maps.
        affines: how far the scales and the shifts of each layer norm are from their means over positions, as the rms
            over channels (2, norms, h, w); None for an operator without affines.
    """

    name: str
    parts: Parts
    deviations: Mapping[Parts, Floats]
    affinity: Floats | None = None
    affines: Floats | None = None

    def spread(self, kept: Parts | None = None) -> float:
        """The spread if these parts alone keep their position; None: all, the kernels as they were learned."""
        return float(np.sqrt(np.mean(np.square(self.deviations[self.parts if kept is None else kept], dtype=float))))

    @cached_property
    def shares(self) -> dict[str, float]:
        """The Shapley value of each part in spread²: they sum to the spread² as learned."""
        total = dict.fromkeys(self.parts, 0.0)
        for order in permutations(self.parts):
            for count, part in enumerate(order):
                with_it, without = ({*order[: count + 1]}, {*order[:count]})
                total[part] += self._energy(with_it) - self._energy(without)
        return {part: value / math.factorial(len(self.parts)) for part, value in total.items()}

    def _energy(self, kept: set[str]) -> float:
        return self.spread(tuple(part for part in self.parts if part in kept)) ** 2


@dataclass(frozen=True, eq=False)
class RunKernels:
    """What was measured of one network.

    Attributes:
        path: the folder of its run, or its checkpoint file.
        column: the column of tables that it belongs to.
        holdout: its unseen domain.
        seed: the seed of its run.
        phantom: whether synthetic photographs trained it.
        checkpoint: name of the checkpoint.
        layers: its operators with a kernel for each position, in the order of the network.
    """

    path: Path
    column: Column
    holdout: str
    seed: int
    phantom: bool
    checkpoint: str
    layers: tuple[LayerKernels, ...]


def subsets(parts: Parts) -> list[Parts]:
    """Every subset of some parts, the whole first, the empty one last."""
    sizes = range(len(parts), -1, -1)
    return list(chain.from_iterable(combinations(parts, size) for size in sizes))


def kernels_file(run: RunFolder, checkpoint: str) -> Path:
    """Where a run keeps what was measured of one of its checkpoints."""
    return run.path / "kernels" / f"{checkpoint}.npz"


def snapshot_file(run: RunFolder, epoch: int) -> Path:
    """Where a run keeps what was measured after an epoch, counted from 1, if its settings ask for it."""
    return run.path / "kernels" / f"epoch-{epoch:04d}.npz"


def snapshots(run: RunFolder) -> dict[int, tuple[LayerKernels, ...]]:
    """What a run has kept after epochs (`train.keep_affinity`), by epoch.

    Raises:
        RunError: there is nothing, or a file is damaged.
    """
    found = {int(path.stem.removeprefix("epoch-")): path for path in sorted(run.path.glob("kernels/epoch-[0-9]*.npz"))}
    if not found:
        raise RunError(
            f"{run.path}: nothing was kept of its epochs; train with --set train.keep_affinity=true, in another --out"
        )
    return {epoch: read_kernels(path)[0] for epoch, path in found.items()}


def write_kernels(
    path: Path, layers: Sequence[LayerKernels], *, digest: str = "", dtype: type[np.floating[Any]] = np.float32
) -> None:
    """Write what was measured, atomically; equal measures give equal bytes.

    Args:
        path: the file, .npz.
        layers: what was measured.
        digest: SHA-256 of the checkpoint that it is of; empty for a network that was not saved.
        dtype: of the arrays on disk.

    Raises:
        RunError: the file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {"names": np.array([layer.name for layer in layers]), "digest": np.array(digest)}
    for number, layer in enumerate(layers):
        maps = np.stack([layer.deviations[kept] for kept in subsets(layer.parts)])
        own = {"deviations": maps, "affinity": layer.affinity, "affines": layer.affines}
        arrays[f"{number}/parts"] = np.array(layer.parts, dtype=str)
        arrays |= {f"{number}/{name}": value.astype(dtype) for name, value in own.items() if value is not None}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_kernels(path: Path) -> tuple[tuple[LayerKernels, ...], str]:
    """What `write_kernels` wrote: the layers, and the digest of their checkpoint.

    Raises:
        RunError: the file cannot be read; nothing in it is executed.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            layers = []
            for number, name in enumerate(content["names"].tolist()):
                parts = tuple(content[f"{number}/parts"].tolist())
                maps = content[f"{number}/deviations"].astype(np.float32)
                further = {
                    key: content[f"{number}/{key}"].astype(np.float32)
                    for key in ("affinity", "affines")
                    if f"{number}/{key}" in content
                }
                layers.append(LayerKernels(name, parts, dict(zip(subsets(parts), maps, strict=True)), **further))
            return tuple(layers), str(content["digest"])
    except _NOT_READ as error:
        raise RunError(f"{path}: cannot be read as what was measured of kernels; remove the file") from error
