"""Compare operators on phantom faces at equal width: accuracy over seeds, and the interval of each difference.

    python compare.py --ops depthwise,tvconv --seeds 5

The interval is of the mean over seeds and pairs, both resampled; the identities of a pair that is told right by one
operator and wrong by the other weigh together, as the eyes of a patient do.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from faces import Identities, read_pairs
from phantom import make_faces
from train import train
from verification import similarities, ten_folds

from fundus_seg.models.backbones import Embedder, mobilenet_v2
from fundus_seg.seeding import seeded
from fundus_seg.statistics.intervals import bootstrap_interval, mean_sd


def main() -> None:
    """Read the options, train every operator with every seed, and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ops", default="depthwise,tvconv", help="operators; the others are compared with the first")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--width", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=32, help="side of the pictures in pixels")
    options = parser.parse_args()
    operators = options.ops.split(",")
    with tempfile.TemporaryDirectory() as folder:
        make_faces(Path(folder), side=options.side)
        data = Identities(Path(folder, "train"))
        pairs = read_pairs(Path(folder, "pairs.txt"), Path(folder, "test"))
        right = {operator: np.zeros((options.seeds, len(pairs.same))) for operator in operators}
        for seed in range(options.seeds):
            for operator in operators:
                with seeded(seed, 0, "network"):
                    network = Embedder(mobilenet_v2(options.width, operator, image_size=options.side))
                for _ in train(network, data, dimensions=512, epochs=options.epochs, batch=options.batch, seed=seed):
                    pass
                right[operator][seed] = ten_folds(similarities(network, pairs), pairs.same, pairs.fold)
                print(f"seed {seed}, {operator}: {100 * right[operator][seed].mean():.2f} %", flush=True)
    identities = [path.parent.name for path in pairs.left]
    first = operators[0]
    for operator in operators:
        mean, sd = mean_sd(100 * right[operator].mean(axis=1))
        print(f"{operator}: {mean:.2f} % of pairs right, SD {sd:.2f} over {options.seeds} seeds")
        if operator != first:
            difference = 100 * (right[operator] - right[first])
            interval = bootstrap_interval(difference, patients=[identities])
            print(
                f"  {operator} - {first}: {difference.mean():+.2f} points, 95 % interval {interval.low:+.2f} to "
                f"{interval.high:+.2f} over {interval.over}"
            )


if __name__ == "__main__":
    main()
