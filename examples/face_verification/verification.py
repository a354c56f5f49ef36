"""Face verification by ten folds: are two pictures of one identity?"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from faces import read_picture
from numpy.typing import NDArray
from pairs import FOLDS, Pairs
from torch import Tensor, nn


def ten_folds(similarity: NDArray[np.float64], same: NDArray[np.bool_], fold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each pair (N,) is told right at the threshold that is most accurate on the nine other folds.

    Args:
        similarity: (N,) of each pair.
        same: (N,) whether a pair shows one identity.
        fold: (N,) from 0 to 9.
    """
    right = np.zeros(len(same), bool)
    for number in range(FOLDS):
        held = fold == number
        threshold = best_threshold(similarity[~held], same[~held])
        right[held] = (similarity[held] >= threshold) == same[held]
    return right


def by_fold(right: NDArray[np.bool_], fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """The accuracy (10,) of each fold."""
    return np.array([right[fold == number].mean() for number in range(FOLDS)])


def best_threshold(similarity: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The threshold at and above which "same" is right most often; of equally good ones the highest.

    It lies midway between two neighbouring similarities, or 0.5 beyond all of them.
    """
    values, place = np.unique(-similarity, return_inverse=True)  # from the most similar down
    gained = np.zeros(len(values))
    np.add.at(gained, place, np.where(same, 1, -1))  # equal similarities are accepted together
    best = int(np.argmax(np.concatenate([[0.0], np.cumsum(gained)])))  # how many of the values are accepted
    bounds = np.concatenate([[values[0] - 1], values, [values[-1] + 1]])
    return -float(bounds[best : best + 2].mean())


@torch.no_grad()
def similarities(network: nn.Module, pairs: Pairs, side: int, *, batch: int = 64) -> NDArray[np.float64]:
    """Cosine (N,) of the embeddings of each pair's two pictures; the network is left in evaluation mode.

    Args:
        network: pictures (B, 3, side, side) to embeddings (B, dimensions).
        pairs: what is compared.
        side: of the pictures in pixels.
        batch: pictures that are embedded at once.

    Raises:
        DataError: a picture cannot be read, or has another size.
    """
    network.eval()
    device = next(network.parameters()).device
    files = sorted({*pairs.left, *pairs.right})
    embeddings: list[Tensor] = []
    for start in range(0, len(files), batch):
        pictures = torch.stack([read_picture(path, side) for path in files[start : start + batch]])
        embeddings.append(F.normalize(network(pictures.to(device))).cpu().double())
    of = dict(zip(files, torch.cat(embeddings), strict=True))
    return np.array([float(of[one] @ of[two]) for one, two in zip(pairs.left, pairs.right, strict=True)])
