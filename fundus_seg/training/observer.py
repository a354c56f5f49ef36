"""Observers of a run while it trains: loggers, the probe of the holdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from fundus_seg.config import ResolvedRun
from fundus_seg.runs.folder import RunFolder


class Observer(Protocol):
    """Is called after every epoch of a run; changes nothing that the run computes or selects."""

    def on_begin(self, folder: RunFolder, config: ResolvedRun, history: Sequence[Mapping[str, Any]]) -> None:
        """Called when the run begins, or resumes after the epochs in `history`, whose rows are those of metrics.csv."""

    def on_epoch_end(self, row: Mapping[str, Any], network: nn.Module) -> None:
        """Called after an epoch with its row and the network, in whatever mode, before the epoch's files are written.

        A run that is killed before its next save repeats the epochs since the last one to the same bits, and calls
        this again for each of them.
        """

    def on_save(self) -> None:
        """Called before the run saves its state: what must not be lost is on disk when this returns."""
