"""Train a light network for face verification as the TVConv paper does, and verify it by ten folds.

    python train.py                                  phantom faces, MobileNetV2 x0.1 with TVConv, a few minutes
    python train.py --train FACES --pairs lfw/pairs.txt --pictures lfw/aligned --epochs 38 --batch 512

Without `--train` the phantom is drawn into a temporary folder. Pictures must be aligned and square.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from faces import Identities, read_pairs
from phantom import make_faces
from torch import Tensor, nn
from torch.utils.data import DataLoader
from verification import by_fold, similarities, ten_folds

from fundus_seg.models.backbones import Embedder, mobilenet_v2, shufflenet_v2
from fundus_seg.seeding import seeded
from fundus_seg.statistics.intervals import mean_sd

FAMILIES = {"mobilenetv2": mobilenet_v2, "shufflenetv2": shufflenet_v2}
MARGIN, SCALE = 0.35, 32.0
"""Of the released code; the paper of AM-Softmax has the scale 30."""
LEARNING_RATE, BATCH, MOMENTUM, WEIGHT_DECAY = 0.1, 512, 0.9, 5e-4
"""The learning rate is that of this batch; smaller batches get less in proportion. At 0.1, batches of 32 diverge."""
EPOCHS, DROPS = 38, (22, 30, 35)
"""The epochs at which the learning rate falls to a tenth; of fewer epochs they are the same shares."""


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


def train(
    network: nn.Module, data: Identities, *, dimensions: int, epochs: int, batch: int, seed: int
) -> Iterator[float]:
    """Train the network in place; the mean loss of each epoch, one after another.

    SGD, every parameter decays; pictures are mirrored with probability 0.5. A last batch that is not full is left out.
    """
    with seeded(seed, 0, "margin"):
        loss_of = AMSoftmax(dimensions, data.identities)
    parameters = [*network.parameters(), *loss_of.parameters()]
    optimiser = torch.optim.SGD(
        parameters, lr=LEARNING_RATE * batch / BATCH, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    drops = [round(drop * epochs / EPOCHS) for drop in DROPS]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops)
    loader = DataLoader(data, batch, shuffle=True, drop_last=True)
    for epoch in range(epochs):
        network.train()
        total = 0.0
        with seeded(seed, epoch, "faces"):
            for pictures, labels in loader:
                mirrored = torch.rand(len(pictures), 1, 1, 1) < 0.5
                loss = loss_of(network(torch.where(mirrored, pictures.flip(-1), pictures)), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach())
        schedule.step()
        yield total / len(loader)


def main() -> None:
    """Read the options, train, and print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=Path, help="folder with a folder of pictures for each identity")
    parser.add_argument("--pairs", type=Path, help="file of pairs")
    parser.add_argument("--pictures", type=Path, help="folder of the pictures that the pairs name")
    parser.add_argument("--family", choices=FAMILIES, default="mobilenetv2")
    parser.add_argument("--width", type=float, default=0.1)
    parser.add_argument("--op", default="tvconv", help="operator in the depthwise slots")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=96, help="side of the pictures in pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    given = [options.train, options.pairs, options.pictures]
    if any(given) and not all(given):
        parser.error("--train, --pairs and --pictures belong together")
    with tempfile.TemporaryDirectory() as folder:
        if not any(given):
            make_faces(Path(folder), seed=0, side=options.side)
            given = [Path(folder, "train"), Path(folder, "pairs.txt"), Path(folder, "test")]
        data, pairs = Identities(given[0]), read_pairs(*given[1:])
        with seeded(options.seed, 0, "network"):
            backbone = FAMILIES[options.family](options.width, options.op, image_size=options.side)
            network = Embedder(backbone, dimensions=512)
        losses = train(network, data, dimensions=512, epochs=options.epochs, batch=options.batch, seed=options.seed)
        for epoch, loss in enumerate(losses, 1):
            print(f"epoch {epoch}: loss {loss:.3f}", flush=True)
        right = ten_folds(similarities(network, pairs), pairs.same, pairs.fold)
        mean, sd = mean_sd(100 * by_fold(right, pairs.fold))
        print(f"{options.op}: {mean:.2f} % of {len(right)} pairs right, SD {sd:.2f} over ten folds")


if __name__ == "__main__":
    main()
