"""Measure how much an encoder's features vary within photographs and across them, domain by domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.cores import map_on_cores
from fundus_seg.data.cache import RESAMPLING
from fundus_seg.data.files import SPLITS, Case, Split
from fundus_seg.data.io import read_photograph
from fundus_seg.data.layout import DataRoot
from fundus_seg.data.shift import MOST_SHIFT, shifted
from fundus_seg.errors import DataError, Problems, UsageError
from fundus_seg.evaluation.variance import FeatureVariances
from fundus_seg.models import scale_photographs
from fundus_seg.models.encoders import Encoder, build_encoder
from fundus_seg.models.packaged_weights import ENCODER
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import DEEP_STRIDE
from fundus_seg.seeding import generator, seeded
from fundus_seg.statistics.layout import LayoutVariance

_BATCH = 8


def measure_variance(
    root: DataRoot,
    splits: Sequence[Split] = SPLITS,
    *,
    encoder: str = ENCODER,
    weights: str = "imagenet",
    size: int = 256,
    shifts: Sequence[float] = (0.2,),
    seed: int = 0,
    progress: Progress = SILENT,
) -> FeatureVariances:
    """Measure every domain with the photographs as they are, then with random translations: misaligned crops.

    A photograph is shifted by whole pixels at the encoder's size, by a share of the side that is uniform between
    -shift and shift for each axis, and reflected at the border, so that nothing but its alignment changes. The
    direction depends on the seed and the photograph alone: larger shifts move it further along the same line.

    Args:
        root: the photographs; their masks are not read.
        splits: which of their splits.
        encoder: as in `build_encoder`.
        weights: "imagenet", "none", or the path of a state dict, as in `build_encoder`.
        size: height and width at which the encoder sees the photographs, a multiple of 16.
        shifts: the largest translations, as shares of the side; 0 is always measured.
        seed: of the translations and of random weights.
        progress: shows what is done, and is told of files and domains that are left out.

    Raises:
        UsageError: the encoder is unknown, the size does not fit, or a shift is not possible.
        CheckpointError: there are no such weights.
        DataError: no domain has two photographs that can be read.
    """
    if size < DEEP_STRIDE * 2 or size % DEEP_STRIDE:
        raise UsageError(f"size {size}: take a multiple of {DEEP_STRIDE}, from {DEEP_STRIDE * 2} on")
    for shift in shifts:
        if not 0 <= shift <= MOST_SHIFT:
            raise UsageError(f"shift {shift:g}: it is a share of the side, from 0 to {MOST_SHIFT:g}")
    with seeded(seed, 0, "encoder"):
        network = build_encoder(encoder, weights, image_size=size).eval()
    problems, rows, alone = Problems(), [], []
    for domain in root.domains:
        found = [root.split(domain, split) for split in splits]
        cases = [case for each in found for case in each.cases]
        for each in found:
            problems.found += each.problems
        read = partial(_read, size=size)
        description = f"reading {domain}"
        there = map_on_cores(read, cases, problems=problems, description=description, progress=progress)
        if len(there) < 2:
            alone.append(domain)
            continue
        wanted = sorted({0.0, *map(float, shifts)})
        with progress.task(f"features of {domain}", total=len(there) * len(wanted)) as advance:
            for shift in wanted:
                stages: list[LayoutVariance] = []
                for start in range(0, len(there), _BATCH):
                    batch = [misaligned(image, case, shift, seed) for case, image in there[start : start + _BATCH]]
                    for number, features in enumerate(_stages(network, np.stack(batch))):
                        if number == len(stages):
                            stages.append(LayoutVariance())
                        stages[number].add(features)
                    for _ in batch:
                        advance()
                rows += [
                    {"domain": domain, "shift": shift, "stage": number, **_row(stage, size)}
                    for number, stage in enumerate(stages, 1)
                ]
    progress.left_out("domain", "with fewer than two photographs that can be read, which do not vary", alone)
    if not rows:
        raise DataError("no domain has two photographs that can be read; `fundus-seg data check` says why", root.path)
    return FeatureVariances(
        root.phantom, " and ".join(splits), encoder, weights, size, pd.DataFrame(rows), tuple(problems.found)
    )


def misaligned(image: NDArray[np.uint8], case: Case, shift: float, seed: int) -> NDArray[np.uint8]:
    """A square photograph (S, S, 3), shifted as `measure_variance` says."""
    direction = generator(seed, 0, f"variance/{case.domain}/{case.split}/{case.name}").uniform(-1, 1, size=2)
    return shifted(image, direction, shift)


def _read(case: Case, size: int) -> tuple[Case, NDArray[np.uint8]]:
    """The photograph (size, size, 3), resized as for training."""
    image = Image.fromarray(read_photograph(case.image).pixels)
    return case, np.asarray(image.resize((size, size), RESAMPLING["lanczos"]))


@torch.inference_mode()
def _stages(network: Encoder, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """The features (B, C, h, w) of each stage, of photographs (B, S, S, 3)."""
    batch = scale_photographs(torch.from_numpy(images).permute(0, 3, 1, 2))
    features: Any = network.body(batch)
    for own in features:
        if own.shape[2:] != batch.shape[2:]:  # the library's first are the photographs themselves
            yield own.float().numpy()


def _row(stage: LayoutVariance, size: int) -> dict[str, float]:
    """The columns of one stage."""
    channels, height, _ = stage.shape
    ratio = stage.cross / stage.intra if stage.intra else float("nan")
    numbers = {"intra": stage.intra, "cross": stage.cross, "ratio": ratio}
    return {"stride": size // height, "channels": channels, "photographs": stage.images, **numbers}
