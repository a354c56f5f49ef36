"""Augmentations by name.

An augmentation maps an image (S, S, 3) uint8 and its masks (2, S, S) uint8 to the same shapes and types. There are two
kinds. An `EachCase` draws from a generator that belongs to the case, so that cases can be made in any order, in threads
beside the training step. Any other augmentation draws from one generator throughout an epoch, so that its cases are
made one after another.

The built-in ones stand in `fundus_seg.data.augment`. Its parts, such as `colour` and `flip`, combine to
`flip+colour`. They are applied in the order of `fundus_seg.builtins.AUGMENTATION_PARTS`, and each part draws the same
numbers whichever others stand beside it: what is left out of the whole in an ablation changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import AUGMENTATION_PARTS, AUGMENTATIONS
from fundus_seg.data.shift import shifted
from fundus_seg.errors import UsageError
from fundus_seg.plugins import blamed, find, parts_of
from fundus_seg.seeding import generator

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""An image (S, S, 3) and its masks (2, S, S)."""
Augmentation = Callable[[NDArray[np.uint8], NDArray[np.uint8]], Pair]


@dataclass(frozen=True)
class EachCase:
    """An augmentation that is called in several threads at once, with a generator for each case.

    Attributes:
        augment: maps an image, its masks and the case's generator to the image and masks. Its result depends on these
            three alone: whatever it keeps between calls must be each thread's own.
    """

    augment: Callable[[NDArray[np.uint8], NDArray[np.uint8], np.random.Generator], Pair]


def augmentation(name: str, size: int, seed: int, *, shift: float = 0.0) -> Augmentation | EachCase | None:
    """The augmentation `name`, then a random translation; None for `none` without a translation.

    The translation is uniform for each axis. It is drawn after all else, so that the augmentation draws the same
    numbers with it and without; and in one direction for all strengths, so that a larger one moves a case further.

    Args:
        name: a key of `fundus_seg.builtins.AUGMENTATIONS`, keys of `AUGMENTATION_PARTS` joined by `+`, or
            `package.module:factory` of your own.
        size: height and width of the images.
        seed: seed of the generator of an augmentation that is no `EachCase`.
        shift: the largest translation of a case, as a share of the side.

    Raises:
        UsageError: the name is unknown, or the plugin cannot be loaded or raises; when the augmentation is called, it
            raises, or returns other shapes or types than it was given.
    """
    augment = _named(name, size, seed)
    return _shifting(augment, shift, generator(seed, 0, "shift")) if shift else augment


def _named(name: str, size: int, seed: int) -> Augmentation | EachCase | None:
    parts = parts_of("augmentation", name, AUGMENTATIONS, AUGMENTATION_PARTS)
    if parts[0] in AUGMENTATION_PARTS:
        return _joined({part: find("augmentation", part, AUGMENTATIONS)(size, seed) for part in parts})
    factory = find("augmentation", name, AUGMENTATIONS)
    with blamed(name):
        augment: Augmentation | EachCase | None = factory(size, seed)
    if augment is None or name in AUGMENTATIONS:
        return augment
    if isinstance(augment, EachCase):
        return EachCase(partial(_checked, name, augment.augment))
    return partial(_checked, name, augment)


def _shifting(
    augment: Augmentation | EachCase | None, shift: float, rng: np.random.Generator
) -> Augmentation | EachCase:
    """The augmentation, then a translation, which is drawn from the case's generator or else from `rng`."""

    def moved(image: NDArray[np.uint8], masks: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
        direction = rng.uniform(-1, 1, size=2)
        return shifted(image, direction, shift), shifted(masks, direction, shift, axes=(1, 2))

    if augment is None:
        return EachCase(moved)
    if isinstance(augment, EachCase):
        return EachCase(lambda image, masks, own: moved(*augment.augment(image, masks, own), own))
    return lambda image, masks: moved(*augment(image, masks), rng)


def _joined(parts: Mapping[str, EachCase]) -> EachCase:
    """The parts one after another, each with a generator that depends on the case and the part's name alone."""

    def augment(image: NDArray[np.uint8], masks: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
        case = int(rng.integers(2**63))
        for name, part in parts.items():
            image, masks = part.augment(image, masks, generator(case, 0, name))
        return image, masks

    return EachCase(augment)


def _checked(
    name: str,
    augment: Callable[..., Pair],
    image: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    *rng: np.random.Generator,
) -> Pair:
    """What the augmentation of a plugin makes of a case; refused if shapes or types have changed."""
    with blamed(name):
        one, other = augment(image, masks, *rng)
    pair = np.asarray(one), np.asarray(other)
    given, taken = ([f"{array.shape} {array.dtype}" for array in arrays] for arrays in (pair, (image, masks)))
    if given != taken:
        raise UsageError(f"{name}: gives {' and '.join(given)}: return image and masks as {' and '.join(taken)}")
    return pair
