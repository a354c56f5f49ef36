"""Train the localiser on whole-frame phantoms, and on true frames where some are given."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fundus_seg.builtins import BACKGROUND
from fundus_seg.data.dataset import read_sample
from fundus_seg.data.field import field_box
from fundus_seg.data.layout import DataRoot
from fundus_seg.models import scale_photographs
from fundus_seg.models.localiser import LocaliserNet
from fundus_seg.phantom.frames import FRAME_CAMERAS, draw_frame
from fundus_seg.phantom.make import draw_case
from fundus_seg.progress import SILENT, Progress
from fundus_seg.seeding import generator, reproducible, seeded
from fundus_seg.training.localiser_views import Framed, draw_view

_LONGEST = 480
"""Longest side at which photographs are kept in memory."""
_BATCH = 16
_RATE, _DECAY = 4e-3, 1e-2
_CROPS = 0.15
"""Crops of the phantom for each of its frames: they show a disc sharper than a square cut from a small frame."""


def train_localiser(
    *,
    holdout: str,
    frames: int,
    steps: int,
    seed: int = 0,
    root: DataRoot | None = None,
    progress: Progress = SILENT,
) -> LocaliserNet:
    """Train the localiser; the result depends on the arguments alone, on one machine.

    Args:
        holdout: the phantom's domain whose camera is not seen.
        frames: phantoms of each of the others.
        steps: of 16 views each.
        seed: of everything that is drawn.
        root: true frames with their masks, whose training splits are taken; None: phantoms alone.
        progress: shows how far it is.
    """
    domains = [domain for domain in FRAME_CAMERAS if domain != holdout]
    pool: list[Framed] = []
    with progress.task("drawing frames", total=len(domains) * frames) as advance:
        for domain in domains:
            for index in range(frames):
                image, mask = draw_frame(domain, index, seed, most=_LONGEST)
                pool.append(framed(image, mask != BACKGROUND))
                if index < round(_CROPS * frames):
                    image, mask = draw_case(domain, index, seed)
                    pool.append(framed(image, mask != BACKGROUND))
                advance()
    if root:
        cases = [case for domain in root.domains for case in root.cases(domain, "train")]
        pool += [framed(each.image, each.masks[0]) for each in map(read_sample, cases)]
    return _fit(pool, steps, seed, progress)


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


def _fit(pool: Sequence[Framed], steps: int, seed: int, progress: Progress) -> LocaliserNet:
    with reproducible(1), seeded(seed, 0, "localiser"):
        network = LocaliserNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.15)
        rng = generator(seed, 0, "localiser/views")
        with progress.task("training the localiser", total=steps) as advance:
            for _ in range(steps):
                views = [draw_view(pool[place], rng) for place in rng.integers(len(pool), size=_BATCH)]
                seen, shares = (torch.from_numpy(np.stack(each)) for each in zip(*views, strict=True))
                loss = _loss(network(scale_photographs(seen.permute(0, 3, 1, 2))), shares)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                advance(loss=loss.item())
    return network.eval()


def _loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Binary cross-entropy, and 1 - Dice of each view; the latter counts a small disc as much as a large one."""
    entropy = F.binary_cross_entropy_with_logits(logits, shares)
    chances = logits.sigmoid()
    both = (chances * shares).sum((1, 2))
    dice = (2 * both + 1) / (chances.sum((1, 2)) + shares.sum((1, 2)) + 1)
    return entropy + (1 - dice).mean()
