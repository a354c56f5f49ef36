"""Who watches a run while it trains: loggers, a probe of the unseen domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from fundus_seg.config import RunConfig
from fundus_seg.runs.folder import RunFolder


class Observer(Protocol):
    """Told of every epoch of a run; reads, and changes nothing that the run computes or selects."""

    def begin(self, folder: RunFolder, config: RunConfig, history: Sequence[Mapping[str, Any]]) -> None:
        """The run begins, or goes on after the epochs in `history`, whose rows are those of metrics.csv."""
        ...

    def epoch(self, row: Mapping[str, Any], network: nn.Module) -> None:
        """An epoch is over: its row, and the network, in whatever mode; the epoch's files are written afterwards.

        A run that is killed before they are repeats the epoch, to the same bits: so does this call.
        """
        ...
