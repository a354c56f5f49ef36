"""Cases with a truth as trust sees them: signals, and how good the prediction really was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.config import ResolvedRun
from fundus_seg.data.cache import load_resized
from fundus_seg.data.dataset import read_sample
from fundus_seg.data.files import Case
from fundus_seg.data.framing import Framing
from fundus_seg.data.layout import DataRoot
from fundus_seg.data.transforms import EachCase, augmentation
from fundus_seg.errors import DataError
from fundus_seg.inference.trust_file import Features, Reference
from fundus_seg.inference.watched import Watched, encoder_features
from fundus_seg.metrics import dice, vertical_cup_to_disc_ratio
from fundus_seg.progress import Progress
from fundus_seg.seeding import generator
from fundus_seg.trust.signals import Gaussians, Range, Signals, light

COPIES = 3
"""Altered copies of each calibration case. Without them nothing that is calibrated on would ever go wrong, since the
network has learned these domains, and signals of another camera would count for nothing."""
_ALTERED = "bigaug"
"""How copies are altered: BigAug's wide ranges of light, focus, noise and framing stand for cameras of all kinds."""
_MOST_REFERENCE = 200
"""Photographs of a training domain that the reference is made of, at most."""
_BATCH = 8


@dataclass(frozen=True)
class TrustCase:
    """One case.

    Attributes:
        domain, name, patient: which it is.
        signals: without truth.
        dsc: of disc and cup, NaN where there is no truth.
        vcdr: predicted vertical cup-to-disc ratio, NaN without a disc.
        vcdr_truth: the true one, NaN where it is not known.
        original: whether it is the photograph as it is, and not an altered copy.
    """

    domain: str
    name: str
    patient: str
    signals: Signals
    dsc: tuple[float, float]
    vcdr: float
    vcdr_truth: float
    original: bool = True

    @property
    def ratios(self) -> list[float]:
        """The predicted ratio, and those of the single predictions that have one."""
        return self.signals.ratios_with(self.vcdr)


def make_reference(
    watched: Watched, checkpoints: Sequence[str], training: Sequence[Sequence[Case]], config: ResolvedRun
) -> Reference:
    """What the training photographs are like, at most `_MOST_REFERENCE` of each domain, evenly spaced.

    Args:
        watched: the networks.
        checkpoints: the digest of each one's checkpoint, in their order.
        training: the training split of each domain.
        config: the run's settings, the first one's of an ensemble.

    Raises:
        DataError: the photographs cannot be read, or show no disc.
    """
    splits = {cases[0].domain: load_resized(cases, config.data) for cases in training}
    picked = {domain: _spread(len(split.names)) for domain, split in splits.items()}
    lights = [light(split.images[number]) for domain, split in splits.items() for number in picked[domain]]
    sharpness, lightness = zip(*lights, strict=True)
    framing = Framing.of(np.concatenate([split.masks[picked[domain], 0] for domain, split in splits.items()]))
    features = {}
    for checkpoint, member in zip(checkpoints, watched.compared.members, strict=True):
        found = {domain: _of_batches(member, split.images[picked[domain]]) for domain, split in splits.items()}
        gaussians = Gaussians.of(found)
        means = {domain: _rounded(own) for domain, own in zip(found, gaussians.means, strict=True)}
        features[checkpoint] = Features(means=means, variance=_rounded(gaussians.variance))
    if framing is None:
        raise DataError("nobody has drawn a disc in the training photographs, so trust cannot be calibrated")
    return Reference(
        framing=Range(framing.low, framing.high),
        sharpness=Range.of(sharpness),
        lightness=Range.of(lightness),
        features=features,
    )


def trust_cases(
    watched: Watched,
    reference: Reference,
    checkpoints: Sequence[str],
    cases: Iterable[Case],
    advance: Callable[[], None],
) -> list[TrustCase]:
    """The cases, each predicted as `predict` does, in the photograph's own frame.

    Args:
        watched: the networks.
        reference: what their training photographs are like.
        checkpoints: the digest of each one's checkpoint, in their order.
        cases: the cases.
        advance: called after each.
    """
    found = []
    for case in cases:
        sample = read_sample(case)
        identity = {"domain": case.domain, "name": case.name, "patient": f"{case.domain}/{case.subject}"}
        found.append(_case(watched, reference, checkpoints, sample.image, sample.masks, sample.annotated, **identity))
        advance()
    return found


def altered_cases(
    watched: Watched,
    reference: Reference,
    checkpoints: Sequence[str],
    cases: Sequence[Case],
    root: DataRoot,
    config: ResolvedRun,
    *,
    progress: Progress,
    advance: Callable[[], None],
) -> list[TrustCase]:
    """COPIES altered copies of each case at the training size; arguments as in `trust_cases` and `make_reference`."""
    alter = augmentation(_ALTERED, config.data.size, 0)
    assert isinstance(alter, EachCase)
    found = []
    for domain in dict.fromkeys(case.domain for case in cases):
        split = load_resized(root.cases(domain, "test"), config.data, progress=progress)
        for case in (case for case in cases if case.domain == domain):
            number = split.names.index(case.name)
            identity = {"domain": domain, "name": case.name, "patient": f"{domain}/{case.subject}", "original": False}
            annotated = tuple(map(bool, split.annotated[number]))
            for copy in range(COPIES):
                rng = generator(0, copy, f"trust/{domain}/{case.name}")
                image, masks = alter.augment(np.array(split.images[number]), np.array(split.masks[number]), rng)
                true = np.asarray(masks).astype(bool)
                found.append(_case(watched, reference, checkpoints, np.asarray(image), true, annotated, **identity))
                advance()
    return found


def _case(
    watched: Watched,
    reference: Reference,
    checkpoints: Sequence[str],
    image: NDArray[np.uint8],
    true: NDArray[np.bool_],
    annotated: Sequence[bool],
    **identity: Any,
) -> TrustCase:
    """One photograph (H, W, 3) with its truth (2, H, W), predicted and scored as the masks that `predict` writes."""
    frame = image.shape[:2]
    watch = watched.logits_of_batch([watched.prepare(image)], frame)[0]
    disc, cup = watched.clean(watched.framed(watch, frame))
    written = (disc, cup & disc)
    scores = [dice(own, truth) if told else math.nan for own, truth, told in zip(written, true, annotated, strict=True)]
    known = all(annotated) and bool(true[0].any() and true[1].any())
    return TrustCase(
        **identity,
        signals=watched.signals(watch, reference, checkpoints),
        dsc=(scores[0], scores[1]),
        vcdr=vertical_cup_to_disc_ratio(*written),
        vcdr_truth=vertical_cup_to_disc_ratio(true[0], true[1]) if known else math.nan,
    )


def _spread(count: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_REFERENCE)).round().astype(np.intp))


def _of_batches(member: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    starts = range(0, len(images), _BATCH)
    return np.concatenate([encoder_features(member, images[start : start + _BATCH]) for start in starts])


def _rounded(values: NDArray[np.floating]) -> list[float]:
    """Six digits, which are more than the features have."""
    return [float(f"{value:.6g}") for value in values]
