"""Training batches from memory: the same number of cases from each source domain in every step.

What (seed, epoch, step) draws depends on nothing else: not on the operator, nor on where a run was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
    """B = domains x cases per domain. images (B, 3, S, S) uint8, masks (B, 2, S, S) uint8, domains (B,) int64."""

    images: Tensor
    masks: Tensor
    domains: Tensor

    def slice(self, part: int, parts: int) -> Batch:
        """The `part`-th of `parts` equal slices: as many cases of every domain, whose number `parts` must divide."""
        return Batch(self.images[part::parts], self.masks[part::parts], self.domains[part::parts])


class DomainBatches:
    """Batches of `train.batch_per_domain` cases from each of the source domains, whose order gives `Batch.domains`."""

    def __init__(self, sources: Mapping[str, ResizedSplit], train: TrainConfig, *, seed: int) -> None:
        self.sources = dict(sources)
        self.train = train
        self.seed = seed
        largest = max(len(split.names) for split in self.sources.values())
        self.steps = train.steps_per_epoch or math.ceil(largest / train.batch_per_domain)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0."""
        per_domain = self.train.batch_per_domain
        drawn = {
            domain: draw_cases(
                len(split.names),
                self.steps * per_domain,
                self.train.sampling,
                generator(self.seed, epoch, f"batches/{domain}"),
            )
            for domain, split in self.sources.items()
        }
        size = next(iter(self.sources.values())).images.shape[1]
        augment = augmentation(
            self.train.augment, size, seed=int(generator(self.seed, epoch, "augment").integers(2**32))
        )
        for step in range(self.steps):
            picked = slice(step * per_domain, (step + 1) * per_domain)
            yield self._gather({domain: indices[picked] for domain, indices in drawn.items()}, augment)

    def _gather(self, picked: Mapping[str, NDArray[np.int64]], augment: Augmentation | None) -> Batch:
        images = np.concatenate([self.sources[domain].images[indices] for domain, indices in picked.items()])
        masks = np.concatenate([self.sources[domain].masks[indices] for domain, indices in picked.items()])
        if augment is not None:
            pairs = [augment(image, mask) for image, mask in zip(images, masks, strict=True)]
            images, masks = np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])
        numbers = np.repeat(np.arange(len(picked)), self.train.batch_per_domain)
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(masks),
            torch.from_numpy(numbers),
        )


def draw_cases(available: int, count: int, sampling: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices below `available`, `count` of them: shuffled passes one after another, or draws with replacement."""
    if sampling == "replacement":
        return rng.integers(available, size=count)
    passes = [rng.permutation(available) for _ in range(math.ceil(count / available))]
    return np.concatenate(passes)[:count]
