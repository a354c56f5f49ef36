"""Train a light network for face verification as the TVConv paper does, and verify it by ten folds.

    python train.py --side 32                        phantom faces, MobileNetV2 x0.1 with TVConv, a few minutes
    python train.py --train FACES --pairs lfw/pairs.txt --pictures lfw/aligned --workers 8

It trains on the GPU where there is one. Pictures must be aligned and square.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from faces import Identities
from script import PAPER, add_data, add_recipe, at_least, opened, recipe, run
from torch import Tensor, nn
from torch.utils.data import DataLoader
from verification import by_fold, similarities, ten_folds

from fundus_seg.errors import RunError, UsageError
from fundus_seg.hardware import default_device
from fundus_seg.models.backbones import Embedder, mobilenet_v2, shufflenet_v2
from fundus_seg.seeding import seeded
from fundus_seg.statistics.intervals import mean_sd

FAMILIES = {"mobilenetv2": mobilenet_v2, "shufflenetv2": shufflenet_v2}
MARGIN, SCALE = 0.35, 32.0
"""Of the released code; the paper of AM-Softmax has the scale 30."""
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
"""The learning rate of BATCH; smaller batches get less in proportion. At 0.1, batches of 32 diverge."""
EPOCHS, BATCH = PAPER
DROPS = (22, 30, 35)
"""The epochs at which the learning rate falls to a tenth; of fewer epochs they are the same shares."""
DIMENSIONS = 512
"""Of the embeddings."""


class AMSoftmax(nn.Module):
    """Additive margin softmax: the cross entropy of s (cos θ_j - m [j is the truth]).

    F. Wang et al., *Additive Margin Softmax for Face Verification*, IEEE Signal Processing Letters 2018, Eq. 6; θ_j is
    the angle between an embedding and the weight of identity j.
    """

    def __init__(self, dimensions: int, identities: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(identities, dimensions)))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (B, dimensions) with labels (B,)."""
        cosine = F.normalize(embeddings) @ F.normalize(self.weight).T
        margin = MARGIN * F.one_hot(labels, len(self.weight))
        return F.cross_entropy(SCALE * (cosine - margin), labels)


def make_network(family: str, width: float, operator: str, *, side: int, seed: int) -> Embedder:
    """A network with the operator in all of its depthwise slots, on the device that trains it.

    Args:
        family: a key of `FAMILIES`.
        width: the family's width multiplier.
        operator: "depthwise" or a key of `fundus_seg.models.slots.SLOTS`.
        side: of the pictures in pixels.
        seed: of the weights.

    Raises:
        UsageError: as `mobilenet_v2` and `shufflenet_v2`.
    """
    with seeded(seed, 0, "network"):
        network = Embedder(FAMILIES[family](width, operator, image_size=side), dimensions=DIMENSIONS)
    return network.to(default_device())


def check_batch(data: Identities, batch: int) -> None:
    """Raise a UsageError if there are fewer pictures than a batch has."""
    if len(data) < batch:
        raise UsageError(f"--batch {batch}: there are only {len(data)} pictures; take at most that")


def train(
    network: nn.Module,
    data: Identities,
    *,
    epochs: int,
    batch: int,
    seed: int,
    dimensions: int = DIMENSIONS,
    workers: int = 0,
) -> Iterator[float]:
    """Train the network in place; the mean loss of each epoch, one after another.

    SGD, every parameter decays; pictures are mirrored with probability 0.5. A last batch that is not full is left out.

    Args:
        network: pictures (B, 3, side, side) to embeddings (B, dimensions).
        data: what it is trained on, at least a batch.
        epochs: passes over the data.
        batch: pictures of a step.
        seed: of everything drawn.
        dimensions: of the embeddings.
        workers: processes that read pictures.

    Raises:
        UsageError: there are fewer pictures than a batch has.
        RunError: the loss is no longer finite.
    """
    check_batch(data, batch)
    device = next(network.parameters()).device
    with seeded(seed, 0, "margin"):
        loss_of = AMSoftmax(dimensions, data.identities).to(device)
    parameters = [*network.parameters(), *loss_of.parameters()]
    optimiser = torch.optim.SGD(
        parameters, lr=LEARNING_RATE * batch / BATCH, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    drops = [round(drop * epochs / EPOCHS) for drop in DROPS]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops)
    pinned = device.type == "cuda"
    loader = DataLoader(data, batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=pinned)
    for epoch in range(epochs):
        network.train()
        total = 0.0
        with seeded(seed, epoch, "faces"):
            for pictures, labels in loader:
                mirrored = torch.rand(len(pictures), 1, 1, 1) < 0.5
                seen = torch.where(mirrored, pictures.flip(-1), pictures).to(device, non_blocking=True)
                loss = loss_of(network(seen), labels.to(device, non_blocking=True))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach())
        if not math.isfinite(total):
            raise RunError(f"the loss is no longer finite in epoch {epoch + 1}; take another --batch or seed")
        schedule.step()
        yield total / len(loader)


def main() -> None:
    """Read the options, train, and print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data(parser, side=96)
    parser.add_argument("--family", choices=FAMILIES, default="mobilenetv2")
    parser.add_argument("--width", type=float, default=0.1)
    parser.add_argument("--op", default="tvconv", help="operator in the depthwise slots (default: %(default)s)")
    add_recipe(parser)
    parser.add_argument("--seed", type=at_least(0), default=0)
    options = parser.parse_args()
    with opened(options) as (data, pairs):
        network = make_network(options.family, options.width, options.op, side=options.side, seed=options.seed)
        for epoch, loss in enumerate(train(network, data, seed=options.seed, **recipe(options)), 1):
            print(f"epoch {epoch}: loss {loss:.3f}", flush=True)
        right = ten_folds(similarities(network, pairs, options.side), pairs.same, pairs.fold)
        mean, sd = mean_sd(100 * by_fold(right, pairs.fold))
        print(f"{options.op}: {mean:.2f} % of {len(right)} pairs right, SD {sd:.2f} over ten folds")


if __name__ == "__main__":
    run(main)
