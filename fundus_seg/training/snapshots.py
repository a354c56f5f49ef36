"""What the kernels of a run's operators are like after each epoch, kept small: `train.keep_affinity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from fundus_seg.config import ResolvedRun
from fundus_seg.models.positions import measure_layers
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.kernels import snapshot_file, write_kernels
from fundus_seg.training.observer import Observer


class AffinitySnapshots(Observer):
    """Writes kernels/epoch-<n>.npz after each epoch: what `models.measure_layers` measures, in half precision.

    `train` adds it where `train.keep_affinity` asks for it. It draws no random number and does not change the network,
    so the run has the bits of one without it. An epoch that a killed run repeats writes the same file again. Where no
    operator has a kernel for each position, nothing is written.
    """

    def on_begin(self, folder: RunFolder, config: ResolvedRun, history: Sequence[Mapping[str, Any]]) -> None:
        """Remember the folder."""
        self._folder = folder

    def on_epoch_end(self, row: Mapping[str, Any], network: nn.Module) -> None:
        """Measure the network, and write the epoch's file."""
        if layers := measure_layers(network):
            write_kernels(snapshot_file(self._folder, row["epoch"]), layers, dtype=np.float16)

    def on_save(self) -> None:
        """Do nothing: each epoch is on disk already."""
