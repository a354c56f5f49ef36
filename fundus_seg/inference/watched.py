"""A prediction that is watched: the same masks to the bit, and signals of how far they can be trusted.

Several networks are compared with one another. A single network also sees the mirror image of the photograph, which
takes as long again, and its two predictions are compared. Signals are computed on a common frame, so that they do not
depend on how many pixels a photograph has.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fundus_seg.data.framing import disc_framing
from fundus_seg.inference.ensemble import Ensemble
from fundus_seg.inference.predict import Predictor, Segmenter
from fundus_seg.inference.trust_file import Reference, TrustCalibration
from fundus_seg.metrics.clinical import vertical_cup_to_disc_ratio
from fundus_seg.models import scale_photographs
from fundus_seg.protocol import STRUCTURES
from fundus_seg.trust.signals import Signals, fault_count, light, mean_pairwise_dsc, soft_dice_confidence

_FRAME = (256, 256)
"""Height and width of the common frame."""


@dataclass(frozen=True)
class Watch:
    """What was seen of one photograph.

    Attributes:
        logits: of each network each view of it, as `Ensemble` takes them.
        features: of each network (C,), the mean of its encoder's deepest features over the photograph.
        seen: what the first network saw (h, w, 3) uint8.
    """

    logits: Any
    features: tuple[NDArray[np.float32], ...]
    seen: NDArray[np.uint8]


class Watched(Segmenter):
    """A network, or several, whose predictions come with signals.

    Args:
        inner: what predicts; its inference is "resize".
    """

    def __init__(self, inner: Predictor | Ensemble) -> None:
        self.inner = inner
        self.scoring, self.framing, self.phantom = inner.scoring, inner.framing, inner.phantom
        self.compared = Ensemble([inner], views="flip") if isinstance(inner, Predictor) else inner

    @property
    def calibrated(self) -> bool:
        """Whether `probabilities` are calibrated."""
        return self.inner.calibrated

    @property
    def batch(self) -> int:
        """How many photographs a network sees at a time."""
        return self.inner.batch

    @property
    def threads(self) -> int:
        """How many of the processor's cores a network takes while it works."""
        return self.inner.threads

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """What `logits_of_batch` takes of a photograph (H, W, 3) uint8, its mirror image included."""
        return self.compared.prepare(image)

    def logits_of_batch(self, images: Sequence[Any], frame: Sequence[int]) -> Sequence[Watch]:
        """What was seen of at most `batch` photographs, as `Segmenter.logits_of_batch` says."""
        with contextlib.ExitStack() as stack:
            heard = [stack.enter_context(_features(member)) for member in self.compared.members]
            logits = self.compared.logits_of_batch(images, frame)
        features = [views[0] for views in heard]  # of the photograph; those of its mirror image follow
        return [
            Watch(own, tuple(each[number] for each in features), image[0][0])
            for number, (own, image) in enumerate(zip(logits, images, strict=True))
        ]

    def probability(
        self, logits: Watch, frame: Sequence[int], structure: int, *, calibrated: bool = False
    ) -> NDArray[np.float32]:
        """The probability (H, W) of one structure: that of the inner segmenter, to the bit."""
        own = logits.logits if self.inner is self.compared else logits.logits[0][0]
        return self.inner.probability(own, frame, structure, calibrated=calibrated)

    def signals(self, watch: Watch, reference: Reference, checkpoints: Sequence[str]) -> Signals:
        """The signals of one photograph.

        Args:
            watch: what was seen of it.
            reference: what the training photographs are like.
            checkpoints: the digest of each network's checkpoint, in the order of the networks.
        """
        single = self._single(watch)
        whole = single.mean(axis=0) if self.inner is self.compared else single[0]
        raw = whole > self.scoring.threshold
        masks = self.clean(raw)
        drawn = [self.clean(each > self.scoring.threshold) for each in single]
        values = {"faults": math.log1p(fault_count(raw))}
        for number, structure in enumerate(STRUCTURES):
            values[f"disagreement_{structure}"] = 1 - mean_pairwise_dsc([each[number] for each in drawn])
            values[f"unsure_{structure}"] = 1 - soft_dice_confidence(whole[number], masks[number])
        sharpness, lightness = light(watch.seen)
        values["framing"] = reference.framing.beyond(disc_framing(masks[0])) if masks[0].any() else 0.0
        values["sharpness"] = reference.sharpness.beyond(sharpness)
        values["exposure"] = reference.lightness.beyond(lightness)
        distances = [
            reference.features[checkpoint].gaussians.distance(own)
            for checkpoint, own in zip(checkpoints, watch.features, strict=True)
        ]
        values["distance"] = float(np.mean(distances))
        empty = (not masks[0].any(), not masks[1].any())
        return Signals(values, empty, tuple(vertical_cup_to_disc_ratio(disc, cup & disc) for disc, cup in drawn))

    def _single(self, watch: Watch) -> NDArray[np.float32]:
        """The probabilities (K, 2, H, W) of each network and view, on the common frame."""
        found = []
        for member, views in zip(self.compared.members, watch.logits, strict=True):
            for view, flipped in zip(views, self.compared.mirrored, strict=True):
                own = np.stack([member.probability(view, _FRAME, number) for number in range(len(STRUCTURES))])
                found.append(own[..., ::-1] if flipped else own)
        return np.stack(found)


@dataclass(frozen=True)
class Trusted:
    """How far the prediction of one photograph can be trusted.

    Attributes:
        signals: of the photograph.
        calibration: what makes trust of them.
        line: the predicted DSC, mean of disc and cup, below which it is declined; None: it never is.
    """

    signals: Signals
    calibration: TrustCalibration
    line: float | None

    def values(self, vertical_cdr: float) -> dict[str, float]:
        """The columns of trust, by the predicted vertical cup-to-disc ratio."""
        return self.calibration.values(self.signals, vertical_cdr)

    @property
    def declined(self) -> bool:
        """Whether the predicted DSC lies below the line."""
        return self.line is not None and self.calibration.overall(self.signals) < self.line


@dataclass(frozen=True)
class Judge:
    """Judges what a watched segmenter has seen.

    Attributes:
        watched: the segmenter.
        calibration: of its trust.
        checkpoints: the digest of each network's checkpoint, in the order of the networks.
        line: as in `Trusted`.
    """

    watched: Watched
    calibration: TrustCalibration
    checkpoints: Sequence[str]
    line: float | None

    def __call__(self, watch: Watch) -> Trusted:
        """How far the prediction of one photograph can be trusted."""
        signals = self.watched.signals(watch, self.calibration.reference, self.checkpoints)
        return Trusted(signals, self.calibration, self.line)


@torch.inference_mode()
def encoder_features(predictor: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean (B, C) of the encoder's deepest features over photographs (B, h, w, 3) uint8, seen as they are."""
    batch = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(predictor.device)
    encoder: Any = predictor.network.encoder
    return _pooled(encoder(scale_photographs(batch)))


@contextlib.contextmanager
def _features(predictor: Predictor) -> Iterator[list[NDArray[np.float32]]]:
    """Within, a list gets the pooled features (B, C) of each batch that the network sees."""
    heard: list[NDArray[np.float32]] = []
    encoder: Any = predictor.network.encoder
    hook = encoder.register_forward_hook(lambda module, given, features: heard.append(_pooled(features)))
    try:
        yield heard
    finally:
        hook.remove()


def _pooled(features: Any) -> NDArray[np.float32]:
    pooled: NDArray[np.float32] = features[1].float().mean(dim=(2, 3)).cpu().numpy()
    return pooled
