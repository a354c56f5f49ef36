"""Small networks and runs: their settings, what they leave, a kill in one, and a progress that remembers."""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import Tensor

from fundus_seg.builtins import OPERATORS
from fundus_seg.config import RunConfig, load_config
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta
from fundus_seg.progress import Advance, Silent
from fundus_seg.protocol import Scoring
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import RunIdentity

EACH_OPERATOR = [
    pytest.param(op, marks=[pytest.mark.slow] * factory.startswith("fundus_seg.models.compared:"))
    for op, factory in OPERATORS.items()
]
"""Every operator; the compared ones, which have tests of their own in test_compared.py, only where all tests run."""


TINY: dict[str, Any] = {
    "encoder": "tu-mobilenetv2_035",
    "image_size": 64,
    "aspp_channels": 8,
    "expansion": 1,
    "generator_channels": 4,
}
"""Arguments of `build_model` that make a network of 0.4 million parameters with tvconv."""
TINY_SETTINGS = [f"model.{key}={value}" for key, value in TINY.items() if key not in ("image_size", "encoder")]
"""TINY as settings, where it differs from preset tiny."""


def tiny_network(op: str = "tvconv", *, seed: int = 0, **options: Any) -> Any:
    """The network of `TINY`, but for the given arguments, with random weights by a seed."""
    import torch

    from fundus_seg.models import build_model

    torch.manual_seed(seed)
    return build_model(op, **{**TINY, **options})


def images(*shape: int) -> Tensor:
    """Normal random numbers (B, C, H, W), the same each time."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def one_of(*values: Any) -> list[Any]:
    """Parameters of a proof that one value carries: the first; the others only where all tests run."""
    return [pytest.param(value, marks=[pytest.mark.slow] * (value != values[0])) for value in dict.fromkeys(values)]


def settings(*overrides: str, holdout: str = "A", op: str | None = None, seed: int | None = None) -> RunConfig:
    """The settings of a run of preset tiny, by default of tvconv, with one thread, saved after every epoch."""
    arguments = {"holdout": holdout, "model.op": op, "seed": seed}
    return load_config("tiny", overrides=["train.threads=1", "train.save_every=0", *overrides], arguments=arguments)


def metrics(run: RunFolder) -> list[dict[str, str]]:
    """metrics.csv without its time column."""
    with run.metrics.open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def weights(run: RunFolder, name: str = "last") -> dict[str, Tensor]:
    """The weights in a checkpoint."""
    import torch

    return torch.load(run.checkpoint(name), weights_only=True)["model"]


@contextlib.contextmanager
def killed_in_epoch(number: int) -> Iterator[None]:
    """Within it, training is killed after `best` and before `last` of an epoch, which must then be repeated."""
    from fundus_seg.training import fit

    original = fit.write_rows

    def killed(path: Path, rows: Any) -> None:
        if len(rows) == number:
            raise KeyboardInterrupt
        original(path, rows)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "write_rows", killed)
        yield


class Lines(Silent):
    """Remembers the lines, and by description how many units of each task were done."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: Counter[str] = Counter()

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        def advance(**_: Any) -> None:
            self.done[description] += 1

        yield advance

    def line(self, text: str) -> None:
        self.lines.append(text)


def identity(**fields: Any) -> RunIdentity:
    """The identity of a `paper` run of tvconv, fp32, holdout A, seed 0, but for the given fields."""
    usual = {"operator": "tvconv", "recipe": "", "preset": "paper", "precision": "fp32", "holdout": "A", "seed": 0}
    return RunIdentity(**{**usual, **fields})


def evaluation_of(
    rows: list[dict[str, Any]], run: RunIdentity, *, protocol: Scoring | None = None, **meta: Any
) -> Evaluation:
    """An evaluation that was never written, with a path of its own, its checkpoint `best` by source validation.

    Args:
        rows: of the case records.
        run: which run it is of.
        protocol: of the scores; None for the default one.
        meta: other fields of `EvaluationMeta`.
    """
    protocol = protocol or Scoring()
    usual = {"data": {}, "phantom": False, "selection": "source-validation", "checkpoint": "best"}
    usual |= {"protocol": protocol, "protocol_digest": protocol.digest(), "checkpoint_sha256": "", "versions": {}}
    content = EvaluationMeta(run=run, **{**usual, **meta})
    name = f"{run.name}-{run.holdout}-{run.seed}-{content.selection}-{content.scored}.csv"
    return Evaluation(Path(name), content, pd.DataFrame(rows))
