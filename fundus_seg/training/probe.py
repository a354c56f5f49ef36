"""The probe of the holdout: what selection on the unseen domain itself would have picked, measured beside the run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fundus_seg.config import ResolvedRun
from fundus_seg.data.cache import load_resized
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import DataError, RunError
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import write_rows
from fundus_seg.runs.epochs import read_epochs, row_score, score
from fundus_seg.runs.folder import RunFolder
from fundus_seg.training.observer import Observer
from fundus_seg.training.run_data import ValidationSet
from fundus_seg.training.selection import KeptWeights, validation_dice, weights_state


class HoldoutProbe(Observer):
    """Scores the holdout's test split after each epoch, as selection `oracle` does, and keeps the best weights.

    `train(..., probe=True)` adds it. It draws no random number and does not change the network's
    weights, so `last`, `best` and the metrics are those of a run without it, bit for bit. It writes
    checkpoints/oracle.ckpt, the weights of the first maximum, and probe.csv, one row per epoch with the Dice of each
    structure in [0, 1].

    Args:
        root: where the photographs are.
        origin: what the checkpoint says of the photographs that trained the network, as in `RunData`.
        progress: where the reading of photographs is shown.
    """

    def __init__(self, root: DataRoot, origin: Mapping[str, Any], *, progress: Progress = SILENT) -> None:
        self.root = root
        self.origin = origin
        self.progress = progress

    def on_begin(self, folder: RunFolder, config: ResolvedRun, history: Sequence[Mapping[str, Any]]) -> None:
        """Read the probe's record of the epochs in `history`.

        Raises:
            DataError: no case of the holdout has one of the structures.
            RunError: the record lacks epochs that the run has.
        """
        split = load_resized(self.root.cases(config.holdout, "test"), config.data, progress=self.progress)
        for channel, structure in enumerate(STRUCTURES):
            if split.annotated[:, channel].any() and not split.masks[:, channel].any():
                raise DataError(
                    f"{self.root.path}: no case of {config.holdout}/test has a {structure}; nothing to probe"
                )
        self._folder, self._config = folder, config
        self._holdout = {config.holdout: ValidationSet.whole(split)}
        self._oracle = KeptWeights(folder.checkpoint("oracle"))
        self._rows: list[dict[str, float]] = []
        with contextlib.suppress(RunError):
            # A run that was killed repeats the epochs since its last save, and the probe repeats their rows.
            self._rows = read_epochs(folder.probe)[: len(history)]
        if len(self._rows) < len(history) or (history and not folder.checkpoint("oracle").exists()):
            raise RunError(
                f"{folder.path}: probe.csv or oracle.ckpt lacks epochs that were trained; "
                "delete the run and train again"
            )

    def on_epoch_end(self, row: Mapping[str, Any], network: nn.Module) -> None:
        """Score the network, and keep its weights if it is better than in every epoch before."""
        dice_of = self._dice(network)
        if score(dice_of) > max(map(row_score, self._rows), default=-math.inf):
            self._oracle.keep(weights_state(network, self._config, row["epoch"], self.origin))
        self._rows.append({"epoch": row["epoch"], **{f"dice_{name}": value for name, value in dice_of.items()}})

    def on_save(self) -> None:
        """Write what the holdout has chosen, and its rows."""
        self._oracle.save()
        write_rows(self._folder.probe, self._rows)

    def _dice(self, network: nn.Module) -> dict[str, float]:
        device = next(network.parameters()).device
        return validation_dice(network, self._holdout, threshold=self._config.scoring.threshold, device=device)
