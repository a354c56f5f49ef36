"""How long a training step waits for its augmented batch, for each part of `train.augment` and for the whole.

    make bench

The step is that of `tvconv` on MobileNetV2 with a small head, at the paper's image size: most networks that train take
longer, so that a smaller share of their step is spent waiting. The photographs are the phantom's. In every round each
augmentation has an epoch of a few steps, one after the other, so that other work on the machine affects all alike. The
page is written to `augment.md`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from fundus_seg.builtins import AUGMENTATION_PARTS
from fundus_seg.config import TrainConfig
from fundus_seg.cores import core_count
from fundus_seg.data.batches import Batch, DomainBatches
from fundus_seg.data.cache import ResizedSplit
from fundus_seg.data.transforms import EachCase, augmentation
from fundus_seg.hardware import machine
from fundus_seg.models import build_model, scale_photographs
from fundus_seg.phantom.make import draw_case
from fundus_seg.training.task import binary_cross_entropy
from timing import Spread

SIZE = 256
DOMAINS, PER_DOMAIN, STEPS = "BCD", 4, 3
CASES = 4
"""Photographs that are drawn for each domain."""
SMALL = {"aspp_channels": 64, "expansion": 2, "generator_channels": 16}
WAITS = 0.1
WHOLE = "+".join(part for part in AUGMENTATION_PARTS if part != "bigaug")
NAMES = ("none", "scale-crop", *AUGMENTATION_PARTS, WHOLE)


@dataclass
class Measured:
    """Seconds of one augmentation: for each round the median of its epoch's steps, the first wait apart."""

    case: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)


class Trainer:
    """A network and what its training step computes."""

    def __init__(self, size: int) -> None:
        torch.manual_seed(0)
        network = build_model("tvconv", encoder_weights=None, image_size=size, **SMALL)  # type: ignore[arg-type]
        self.network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)

    def step(self, batch: Batch) -> None:
        images = scale_photographs(batch.images).to(memory_format=torch.channels_last)
        self.optimizer.zero_grad()
        binary_cross_entropy(self.network(images), batch.masks).mean().backward()
        self.optimizer.step()


def main() -> None:
    """Measure, print the page and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("augment.md"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1, help="threads that torch uses")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    text = report(measure(arguments.rounds))
    print(text)
    arguments.out.write_text(text, "utf8")


def measure(rounds: int, *, size: int = SIZE) -> dict[str, Measured]:
    """Every augmentation in turn, in each round."""
    sources = {domain: photographs(domain, size) for domain in DOMAINS}
    trainer = Trainer(size)
    measured = {name: Measured() for name in NAMES}
    settings = {
        name: TrainConfig(batch_per_domain=PER_DOMAIN, steps_per_epoch=STEPS, augment=name) for name in measured
    }
    batches = {name: DomainBatches(sources, train, seed=0) for name, train in settings.items()}
    trainer.step(next(batches["none"].epoch(0)))  # the first step is slower
    for number in range(rounds):
        for name, into in measured.items():
            into.case.append(seconds_of_a_case(name, sources["B"], number))
            waits, steps = epoch(batches[name], number, trainer)
            into.first.append(waits[0])
            into.wait.append(float(np.median(waits[1:])))
            into.step.append(float(np.median(steps)))
    return measured


def epoch(batches: DomainBatches, number: int, trainer: Trainer) -> tuple[list[float], list[float]]:
    """Seconds that each step of an epoch waits for its batch, and seconds that it then computes."""
    waits, steps = [], []
    asked = time.perf_counter()
    for batch in batches.epoch(number):
        came = time.perf_counter()
        trainer.step(batch)
        waits.append(came - asked)
        asked = time.perf_counter()
        steps.append(asked - came)
    return waits, steps


def seconds_of_a_case(name: str, split: ResizedSplit, number: int, *, count: int = 24) -> float:
    """Processor time that this thread takes for a case, as a mean of several."""
    augment = augmentation(name, split.images.shape[1], number)
    pairs = [(split.images[each % CASES], split.masks[each % CASES]) for each in range(count)]
    rngs = [(np.random.default_rng([number, each]),) if isinstance(augment, EachCase) else () for each in range(count)]
    call = augment.augment if isinstance(augment, EachCase) else augment
    if call is None:
        return 0.0
    call(*pairs[0], *rngs[0])  # makes the transforms
    before = time.thread_time()
    for pair, rng in zip(pairs, rngs, strict=True):
        call(*pair, *rng)
    return (time.thread_time() - before) / count


def photographs(domain: str, size: int) -> ResizedSplit:
    """Some photographs of the phantom at the training size."""
    drawn = [draw_case(domain, number, 0) for number in range(CASES)]
    images = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image, _ in drawn])
    greys = np.stack([cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST) for _, mask in drawn])
    masks = np.stack([greys < 255, greys == 0], axis=1).astype(np.uint8)
    return ResizedSplit(
        "", tuple(map(str, range(CASES))), images.astype(np.uint8), masks, (), np.ones((CASES, 2), bool)
    )


def report(measured: Mapping[str, Measured]) -> str:
    """The text of the page."""
    lines = [
        "# What augmentation costs a training step",
        "",
        f"{machine()}, {core_count()} cores. Batches of {len(DOMAINS) * PER_DOMAIN} at {SIZE}x{SIZE}; `tvconv` on",
        "MobileNetV2 with a small head, float32.",
        "",
        "Written by `make bench`. `case` is the processor's time for one case. `first` is what the first step of an",
        "epoch waits, `wait` what each later step waits, and `step` what it then computes, while threads augment the",
        "batches of the next steps. Shown are the median over rounds, and in brackets the quartiles.",
        "",
        f"| train.augment | case [ms] | first [ms] | wait [ms] | step [ms] | wait / step | <= {WAITS:g} |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, each in measured.items():
        spreads = [
            Spread.of([1e3 * value for value in values]) for values in (each.case, each.first, each.wait, each.step)
        ]
        share = Spread.of([wait / step for wait, step in zip(each.wait, each.step, strict=True)])
        reached = "yes" if share.median <= WAITS else "no"
        lines.append(f"| {name} | {' | '.join(map(str, spreads))} | {share} | {reached} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
