"""What a network as ONNX must show before it is kept, and how fast it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fundus_seg.errors import FundusSegError
from fundus_seg.inference.onnx_samples import Sample
from fundus_seg.inference.predict import Predictor
from fundus_seg.metrics.overlap import dice
from fundus_seg.models import bake, scale_photographs
from fundus_seg.protocol import STRUCTURES

LARGEST_DIFFERENCE, LEAST_EQUAL = 1e-4, 0.9999
"""The largest difference of two probabilities of a pixel; the share of pixels whose masks are equal."""
MOST_LOST = 0.3
"""Points of Dice, of 0 to 100, that whole numbers of 8 bits may cost, of disc and of cup."""
_TOGETHER = 2
"""Photographs that the graph sees at a time: that it takes several is checked too."""
_ROUNDS, _WARM_UP = 20, 2


@dataclass(frozen=True)
class Parity:
    """How two networks compare on photographs, at these photographs' own size.

    Attributes:
        photographs: how many there are.
        largest_difference: of the probabilities of a pixel, neither calibrated.
        equal_pixels: share of the pixels whose masks are equal, after post-processing, both structures counted.
    """

    photographs: int
    largest_difference: float
    equal_pixels: float

    def __str__(self) -> str:
        return (
            f"probabilities differ by {self.largest_difference:.1e} at most, {100 * self.equal_pixels:.4f} % of the "
            f"masks' pixels are equal, on {self.photographs} photographs"
        )

    def refuse(self) -> None:
        """Raise a FundusSegError if the networks are not alike enough."""
        if not (self.largest_difference <= LARGEST_DIFFERENCE and self.equal_pixels >= LEAST_EQUAL):
            raise FundusSegError(
                f"the network as ONNX is not the one in torch: {self}; {LARGEST_DIFFERENCE:.0e} and "
                f"{100 * LEAST_EQUAL:.2f} % are wanted; nothing was written. Other photographs may show why "
                "(--photographs), and --format torch needs no check"
            )


def parity(original: Predictor, exported: Predictor, samples: Sequence[Sample]) -> Parity:
    """Compare a network as ONNX with the one that it was made of."""
    largest, equal, pixels = 0.0, 0, 0
    for at in range(0, len(samples), _TOGETHER):
        group = samples[at : at + _TOGETHER]
        together = exported.logits(np.stack([sample.seen for sample in group]))
        for sample, logits in zip(group, together, strict=True):
            one, one_masks = _drawn(original, _logits(original, sample), sample)
            other, other_masks = _drawn(exported, logits, sample)
            largest = max(largest, float(np.abs(one - other).max()))
            equal += int((one_masks == other_masks).sum())
            pixels += one_masks.size
    return Parity(len(samples), largest, equal / pixels)


def mean_dice(predictor: Predictor, samples: Sequence[Sample]) -> dict[str, float]:
    """The mean Dice, of 0 to 100, of each structure on the photographs that have true masks of it."""
    scores = []
    for sample in samples:
        masks = sample.region.whole(_drawn(predictor, _logits(predictor, sample), sample)[1], sample.shape)
        written = np.stack([masks[0], masks[0] & masks[1]])
        scores.append([dice(own, true) for own, true in zip(written, sample.masks, strict=True)])
    return dict(zip(STRUCTURES, (100 * np.nanmean(scores, axis=0)).tolist(), strict=True))


@torch.inference_mode()
def latencies(original: nn.Module, exported: nn.Module, size: int) -> tuple[float, float]:
    """Median seconds of one photograph, of the baked network in torch and of the one as ONNX; they take turns."""
    baked = bake(original).to(memory_format=torch.channels_last)
    image = scale_photographs(torch.randint(0, 256, (1, 3, size, size), generator=torch.Generator().manual_seed(0)))
    passes: list[Callable[[], Tensor]] = [partial(each, image) for each in (baked, exported)]
    rounds = [[_seconds(each) for each in passes] for _ in range(_WARM_UP + _ROUNDS)][_WARM_UP:]
    torch_s, onnx_s = (statistics.median(each) for each in zip(*rounds, strict=True))
    return torch_s, onnx_s


def plain(checked: Parity) -> dict[str, float]:
    """The values of a comparison by name."""
    return asdict(checked)


def _logits(predictor: Predictor, sample: Sample) -> Tensor:
    return predictor.logits_of_batch([sample.seen], sample.frame)[0]


def _drawn(predictor: Predictor, logits: Tensor, sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The probabilities and the masks (2, h, w) of a photograph's part."""
    probabilities = np.empty((len(STRUCTURES), *sample.frame), np.float32)
    raw = predictor.framed(logits, sample.frame, probabilities)
    return probabilities, predictor.clean(raw)


def _seconds(infer: Callable[[], object]) -> float:
    started = time.perf_counter()
    infer()
    return time.perf_counter() - started
