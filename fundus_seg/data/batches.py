"""Training batches from memory: the same number of cases from each source domain in every step.

What (seed, epoch, step) draws depends on nothing else: not on the operator, nor on where a run was interrupted.
On a GPU the photographs lie there, and so do an epoch's draws: no step waits for the host. With a method of domain
generalisation one may: domains, and what a method draws of them, are on the CPU.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fundus_seg.config import TrainConfig
from fundus_seg.data.cache import ResizedSplit
from fundus_seg.data.transforms import Augmentation, augmentation
from fundus_seg.seeding import generator


@dataclass(frozen=True)
class Batch:
    """B = domains x cases per domain. images (B, 3, S, S) uint8, masks (B, 2, S, S) uint8, domains (B,) int64.

    The domains are on the CPU, where methods draw.
    """

    images: Tensor
    masks: Tensor
    domains: Tensor

    def slice(self, part: int, parts: int) -> Batch:
        """The `part`-th of `parts` equal slices: as many cases of every domain, whose number `parts` must divide."""
        return Batch(self.images[part::parts], self.masks[part::parts], self.domains[part::parts])


class DomainBatches:
    """Batches of `train.batch_per_domain` cases from each of the source domains, whose order gives `Batch.domains`.

    Args:
        sources: the training split of each source domain.
        train: how many cases a step draws, and how.
        seed: of the run.
        device: where the photographs are kept and batches made; on the CPU they stay in the memory map that all runs
            share. Augmentations run on the CPU, and so do their batches.
    """

    def __init__(
        self, sources: Mapping[str, ResizedSplit], train: TrainConfig, *, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        self.train = train
        self.seed = seed
        self.device = torch.device(device if train.augment == "none" else "cpu")
        self._images = [_tensor(split.images).to(self.device) for split in sources.values()]
        self._masks = [_tensor(split.masks).to(self.device) for split in sources.values()]
        self._domains = torch.arange(len(sources)).repeat_interleave(train.batch_per_domain)
        self._counts = {domain: len(split.names) for domain, split in sources.items()}
        self.steps = train.steps_per_epoch or math.ceil(max(self._counts.values()) / train.batch_per_domain)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0."""
        per_domain = self.train.batch_per_domain
        drawn = [
            torch.from_numpy(
                draw_cases(
                    count,
                    self.steps * per_domain,
                    self.train.sampling,
                    generator(self.seed, epoch, f"batches/{domain}"),
                )
            ).to(self.device)
            for domain, count in self._counts.items()
        ]
        augment = augmentation(
            self.train.augment,
            self._images[0].shape[1],
            seed=int(generator(self.seed, epoch, "augment").integers(2**32)),
        )
        for step in range(self.steps):
            picked = slice(step * per_domain, (step + 1) * per_domain)
            yield self._gather([indices[picked] for indices in drawn], augment)

    def _gather(self, picked: Sequence[Tensor], augment: Augmentation | None) -> Batch:
        images, masks = (
            torch.cat([cases.index_select(0, indices) for cases, indices in zip(domains, picked, strict=True)])
            for domains in (self._images, self._masks)
        )
        if augment is not None:
            pairs = [augment(image, mask) for image, mask in zip(images.numpy(), masks.numpy(), strict=True)]
            images, masks = (torch.from_numpy(np.stack(stack)) for stack in zip(*pairs, strict=True))
        return Batch(images.permute(0, 3, 1, 2).contiguous(), masks, self._domains)


def _tensor(cases: NDArray[np.uint8]) -> Tensor:
    """The array itself as a tensor, not a copy; it may be a memory map that nobody must write to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(cases)


def draw_cases(available: int, count: int, sampling: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices below `available`, `count` of them: shuffled passes one after another, or draws with replacement."""
    if sampling == "replacement":
        return rng.integers(available, size=count)
    passes = [rng.permutation(available) for _ in range(math.ceil(count / available))]
    return np.concatenate(passes)[:count]
