"""Train the localiser on whole-frame phantoms, and on true frames where some are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fundus_seg.builtins import BACKGROUND
from fundus_seg.data.dataset import read_sample
from fundus_seg.data.field import field_box
from fundus_seg.data.layout import DataRoot
from fundus_seg.hardware import default_device
from fundus_seg.models import scale_photographs
from fundus_seg.models.localiser import LocaliserNet
from fundus_seg.phantom.frames import FRAME_CAMERAS, draw_frame
from fundus_seg.phantom.make import draw_case
from fundus_seg.progress import SILENT, Progress
from fundus_seg.seeding import generator, reproducible, seeded
from fundus_seg.training.localiser_views import Framed, draw_view

_Item = TypeVar("_Item")

_LONGEST = 480
"""Longest side at which photographs are kept in memory."""
_RATE, _DECAY = 4e-3, 1e-2
_CROPS = 0.15
"""Crops of the phantom for each of its frames: they show a disc sharper than a square cut from a small frame."""


@dataclass(frozen=True)
class Effort:
    """How much the localiser is trained, and by what.

    Attributes:
        frames: phantoms of each domain that is learnt from.
        steps: of training.
        batch: views of each step.
        workers: processes that draw beside the one that trains; 0: the latter draws too. The result does not depend
            on their number.
    """

    frames: int
    steps: int
    batch: int
    workers: int = 0


def train_localiser(
    effort: Effort, *, holdout: str, seed: int = 0, root: DataRoot | None = None, progress: Progress = SILENT
) -> LocaliserNet:
    """Train the localiser, on a GPU where there is one; on one machine the result depends on the arguments alone.

    Args:
        effort: how much it is trained.
        holdout: the phantom's domain whose camera is not seen.
        seed: of everything that is drawn.
        root: true frames with their masks, whose training splits are taken; None: phantoms alone.
        progress: shows how far it is.
    """
    pool: list[Framed] = []
    drawn = _Drawn([domain for domain in FRAME_CAMERAS if domain != holdout], effort.frames, seed)
    with progress.task("drawing frames", total=len(drawn)) as advance:
        for each in _drawn_by(effort.workers, drawn):
            pool += each
            advance()
    if root:
        cases = [case for domain in root.domains for case in root.cases(domain, "train")]
        pool += [framed(each.image, each.masks[0]) for each in map(read_sample, cases)]
    return _fit(pool, effort, seed, progress)


class _Drawn(Dataset[list[Framed]]):
    """The phantom's frames, and for some of them a crop."""

    def __init__(self, domains: Sequence[str], frames: int, seed: int) -> None:
        self.domains, self.frames, self.seed = domains, frames, seed

    def __len__(self) -> int:
        return len(self.domains) * self.frames

    def __getitem__(self, place: int) -> list[Framed]:
        domain, index = self.domains[place // self.frames], place % self.frames
        pairs = [draw_frame(domain, index, self.seed, most=_LONGEST)]
        if index < round(_CROPS * self.frames):
            pairs.append(draw_case(domain, index, self.seed))
        return [framed(image, mask != BACKGROUND) for image, mask in pairs]


class _Views(Dataset[tuple[Tensor, Tensor]]):
    """The views (batch, 3, LOOK, LOOK) uint8 of each step, and how much of them is disc."""

    def __init__(self, pool: Sequence[Framed], effort: Effort, seed: int) -> None:
        self.pool, self.effort, self.seed = pool, effort, seed

    def __len__(self) -> int:
        return self.effort.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = generator(self.seed, step, "localiser/views")
        views = [draw_view(self.pool[place], rng) for place in rng.integers(len(self.pool), size=self.effort.batch)]
        seen, shares = (torch.from_numpy(np.stack(each)) for each in zip(*views, strict=True))
        return seen.permute(0, 3, 1, 2), shares


def _drawn_by(workers: int, dataset: Dataset[_Item]) -> Iterable[_Item]:
    """The items of a dataset in order, each drawn by one of so many processes."""
    return DataLoader(dataset, batch_size=None, num_workers=workers)


def framed(image: NDArray[np.uint8], disc: NDArray[np.bool_]) -> Framed:
    """A photograph (H, W, 3) and its disc (H, W), made as small as training needs."""
    shrink = min(1.0, _LONGEST / max(image.shape[:2]))
    size = (round(image.shape[1] * shrink), round(image.shape[0] * shrink))
    small, drawn = (
        np.asarray(cv2.resize(each, size, interpolation=cv2.INTER_AREA), np.uint8)
        for each in (image, 255 * disc.astype(np.uint8))
    )
    box = field_box(small)
    return Framed(small, drawn, (box.x + box.width / 2, box.y + box.height / 2, max(box.width, box.height)))


def _fit(pool: Sequence[Framed], effort: Effort, seed: int, progress: Progress) -> LocaliserNet:
    device = default_device()
    with reproducible(1), seeded(seed, 0, "localiser"):
        network = LocaliserNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=effort.steps, pct_start=0.15)
        with progress.task("training the localiser", total=effort.steps) as advance:
            for seen, shares in _drawn_by(effort.workers, _Views(pool, effort, seed)):
                loss = _loss(network(scale_photographs(seen.to(device))), shares.to(device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                advance(loss=loss.item())
    return network.half().float().eval().cpu()  # as it is kept


def _loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Binary cross-entropy, and 1 - Dice of each view; the latter counts a small disc as much as a large one."""
    entropy = F.binary_cross_entropy_with_logits(logits, shares)
    chances = logits.sigmoid()
    both = (chances * shares).sum((1, 2))
    dice = (2 * both + 1) / (chances.sum((1, 2)) + shares.sum((1, 2)) + 1)
    return entropy + (1 - dice).mean()
