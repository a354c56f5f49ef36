"""Training batches from memory: every step has the same number of cases from each source domain.

The cases of a step depend on (seed, epoch, step) alone: neither on the operator nor on where a run was interrupted.
What an `EachCase` augmentation makes of a case depends on these and on its place in the batch; it is made in threads
while earlier steps compute, and no number of threads changes it.

On a GPU, the photographs and the cases drawn for an epoch are kept in its memory, so that no step waits for the host.
Only a step of a domain-generalisation method may wait, because `Batch.domains` is on the CPU. With an augmentation or a
`train.shift`, the batches are made on the CPU, by an `EachCase` in memory that a GPU copies from while it computes.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fundus_seg.config import TrainConfig
from fundus_seg.cores import map_ahead
from fundus_seg.data.cache import ResizedSplit
from fundus_seg.data.transforms import Augmentation, EachCase, augmentation
from fundus_seg.seeding import generator

_STEPS_AHEAD = 2
"""Batches whose cases are augmented before the batch is asked for: enough to bridge a step that is a little slower."""


@dataclass(frozen=True)
class Batch:
    """One training step's cases, B = domains x cases per domain.

    Attributes:
        images: (B, 3, S, S) uint8.
        masks: (B, 2, S, S) uint8 of 0 and 1, channels ("disc", "cup").
        domains: (B,) int64, index of each case's source domain; on the CPU, where methods draw random numbers.
        annotated: (B, 2) bool, whether each structure of a case is annotated, on the CPU too.
    """

    images: Tensor
    masks: Tensor
    domains: Tensor
    annotated: Tensor

    def slice(self, part: int, parts: int) -> Batch:
        """The `part`-th of `parts` equal slices, each with as many cases of every domain.

        `parts` must divide the number of cases per domain.
        """
        each = (self.images, self.masks, self.domains, self.annotated)
        return Batch(*(tensor[part::parts] for tensor in each))


class DomainBatches:
    """Makes batches of `train.batch_per_domain` cases from each source domain.

    Args:
        sources: the training split of each source domain; their order gives the indices in `Batch.domains`.
        train: the number of cases in a step, how they are drawn, and the augmentation.
        seed: seed of the run.
        device: where the photographs are kept and the batches are made. On the CPU, the photographs stay in the memory
            map that all runs share. With an augmentation or a shift, the device is always the CPU.
    """

    def __init__(
        self, sources: Mapping[str, ResizedSplit], train: TrainConfig, *, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        self.train = train
        self.seed = seed
        self.device = torch.device("cpu" if train.augment != "none" or train.shift else device)
        self._pinned = torch.device(device).type == "cuda"
        self._images = [_tensor(split.images).to(self.device) for split in sources.values()]
        self._masks = [_tensor(split.masks).to(self.device) for split in sources.values()]
        self._annotated = [torch.from_numpy(split.annotated) for split in sources.values()]
        self.partial = not all(split.annotated.all() for split in sources.values())
        self._domains = torch.arange(len(sources)).repeat_interleave(train.batch_per_domain)
        self._counts = {domain: len(split.names) for domain, split in sources.items()}
        self.steps = train.steps_per_epoch or math.ceil(max(self._counts.values()) / train.batch_per_domain)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; epochs are counted from 0."""
        per_domain = self.train.batch_per_domain
        drawn = [
            torch.from_numpy(
                draw_cases(
                    count,
                    self.steps * per_domain,
                    self.train.sampling,
                    generator(self.seed, epoch, f"batches/{domain}"),
                )
            )
            for domain, count in self._counts.items()
        ]
        annotated = [own[indices].split(per_domain) for own, indices in zip(self._annotated, drawn, strict=True)]
        marks = [torch.cat(step) for step in zip(*annotated, strict=True)]
        drawn = [indices.to(self.device) for indices in drawn]
        seed = int(generator(self.seed, epoch, "augment").integers(2**32))
        augment = augmentation(self.train.augment, self._images[0].shape[1], seed, shift=self.train.shift)
        each_step = [
            [indices[first : first + per_domain] for indices in drawn]
            for first in range(0, self.steps * per_domain, per_domain)
        ]
        if isinstance(augment, EachCase):
            yield from self._augmented_ahead(each_step, marks, augment, seed)
        else:
            for picked, annotated_there in zip(each_step, marks, strict=True):
                yield self._gather(picked, annotated_there, augment)

    def _gather(self, picked: Sequence[Tensor], annotated: Tensor, augment: Augmentation | None) -> Batch:
        images, masks = (
            torch.cat([cases.index_select(0, indices) for cases, indices in zip(domains, picked, strict=True)])
            for domains in (self._images, self._masks)
        )
        if augment is not None:
            pairs = [augment(image, mask) for image, mask in zip(images.numpy(), masks.numpy(), strict=True)]
            images, masks = (torch.from_numpy(np.stack(stack)) for stack in zip(*pairs, strict=True))
        return Batch(images.permute(0, 3, 1, 2).contiguous(), masks, self._domains, annotated)

    def _augmented_ahead(
        self, each_step: Sequence[Sequence[Tensor]], annotated: Sequence[Tensor], augment: EachCase, seed: int
    ) -> Iterator[Batch]:
        def made(case: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
            step, place, domain, index = case
            rng = np.random.default_rng([seed, step, place])
            image, masks = (cases[domain][index].clone().numpy() for cases in (self._images, self._masks))
            image, masks = augment.augment(image, masks, rng)
            return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(masks.copy())

        size, domains = len(self._domains), self._domains.tolist()
        cases = (
            (step, place, domain, index)
            for step, picked in enumerate(each_step)
            for place, (domain, index) in enumerate(zip(domains, torch.cat(list(picked)).tolist(), strict=True))
        )
        with contextlib.closing(map_ahead(made, cases, ahead=_STEPS_AHEAD * size)) as results:
            for annotated_there in annotated:
                batch = itertools.islice(results, size)
                images, masks = (self._stacked(cases) for cases in zip(*batch, strict=True))
                yield Batch(images, masks, self._domains, annotated_there)

    def _stacked(self, cases: Sequence[Tensor]) -> Tensor:
        shape = len(cases), *cases[0].shape
        return torch.stack(list(cases), out=torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned))


def _tensor(cases: NDArray[np.uint8]) -> Tensor:
    """A tensor that shares the memory of the array, which may be a read-only memory map."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(cases)


def draw_cases(available: int, count: int, sampling: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` indices below `available`: in shuffled passes one after another, or with replacement."""
    if sampling == "replacement":
        return rng.integers(available, size=count)
    passes = [rng.permutation(available) for _ in range(math.ceil(count / available))]
    return np.concatenate(passes)[:count]
