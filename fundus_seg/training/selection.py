"""The Dice that selects: which epoch's weights become `best`, of the rules in `fundus_seg.protocol.SELECTIONS`."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fundus_seg.config import Recipe
from fundus_seg.metrics import dice
from fundus_seg.models import scale_photographs
from fundus_seg.models.checkpoint import network_state, write_checkpoint
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.epochs import row_score
from fundus_seg.training.run_data import ValidationSet

_BATCH = 16


def validation_dice(
    network: nn.Module, domains: Mapping[str, ValidationSet], *, threshold: float, device: torch.device
) -> dict[str, float]:
    """Dice of each structure at the training size: the mean over cases, then over domains.

    Exact Dice of the thresholded probabilities, without components or holes. Left out are cases whose truth is empty or
    not annotated, and domains without an annotated case. A structure that no case has annotated is not in the result.
    """
    network.eval()
    means: dict[str, list[float]] = {}
    for validation in domains.values():
        predictions = _predict(network, validation, threshold, device)
        truths = validation.split.masks[list(validation.cases)].astype(bool)
        scores = [
            [dice(predicted, true) for predicted, true in zip(*pair, strict=True)]
            for pair in zip(predictions, truths, strict=True)
        ]
        annotated = validation.split.annotated[list(validation.cases)]
        there = np.any(annotated, axis=0)
        own = np.nanmean(np.where(annotated, scores, np.where(there, np.nan, 0)), axis=0)
        for structure, mean, known in zip(STRUCTURES, own, there.tolist(), strict=True):
            if known:
                means.setdefault(structure, []).append(float(mean))
    return {structure: sum(own) / len(own) for structure, own in means.items()}


def chosen(rows: Sequence[Mapping[str, Any]], epochs: int, prefix: str = "") -> bool:
    """Whether the selection has chosen the last row's epoch so far: by the first maximum, or as the run's last epoch.

    Args:
        rows: of metrics.csv, one or more.
        epochs: epochs of the run.
        prefix: as in `row_score`.
    """
    *before, now = (row_score(row, prefix) for row in rows)
    return len(rows) == epochs if now == -math.inf else now > max(before, default=-math.inf)


def weights_state(network: nn.Module, config: Recipe, epoch: int, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `best`, `average` and `oracle`: weights, and what rebuilds and uses their network.

    Args:
        network: the network.
        config: the run's settings.
        epoch: number of epochs that it has been trained.
        origin: what the checkpoint says of the photographs that trained it, as in `RunData`.
    """
    scoring = config.scoring.recorded()
    usage = {"image_interpolation": config.data.image_interpolation, "scoring": scoring, **origin}
    if config.mirrored:  # older checkpoints do not have the key
        usage["mirrored"] = True
    return {**network_state(network, usage), "epoch": epoch}


class KeptWeights:
    """The weights that are best so far: in memory until they are saved, since a better epoch may follow at once.

    Args:
        path: the checkpoint that they are saved in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: Mapping[str, Any] | None = None

    def keep(self, state: Mapping[str, Any]) -> None:
        """Copy the weights of a state as `weights_state` gives it, in place of those that were kept before."""
        weights = copy.copy(state["model"])  # a state dict, with what it says of its modules
        for name, value in weights.items():
            weights[name] = value.to("cpu", copy=True)
        self._state = {**state, "model": weights}

    def save(self) -> None:
        """Write the weights that were kept since the last save, if there are any.

        Raises:
            RunError: the checkpoint cannot be written.
        """
        if self._state is not None:
            write_checkpoint(self._path, self._state)
            self._state = None


@torch.inference_mode()
def _predict(
    network: nn.Module, validation: ValidationSet, threshold: float, device: torch.device
) -> NDArray[np.bool_]:
    """Predicted masks (N, 2, S, S) of the N cases."""
    masks = []
    for start in range(0, len(validation.cases), _BATCH):
        images = torch.from_numpy(validation.split.images[list(validation.cases[start : start + _BATCH])])
        logits = network(scale_photographs(images.permute(0, 3, 1, 2).to(device)))
        masks.append((logits.float().sigmoid() > threshold).cpu().numpy())
    return np.concatenate(masks)
