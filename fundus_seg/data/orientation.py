"""Test how masks lie on photographs that EXIF turns, and how NIfTI files lie on pictures (PNG, JPEG ...).

A picture has one way to be read. What the axes of a NIfTI mean depends on the tool that wrote it: the same array, saved
with another affine, is read mirrored or turned. Masks of the same eyes show which reading is right, and so do disc
and cup on a photograph, since they are brighter than what surrounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.data.io import Photograph, frame_text
from fundus_seg.errors import DataError, SharedFaultError

_Masks = NDArray[Any]

TURNS: dict[str, Callable[[_Masks], _Masks]] = {
    "as they are read": lambda masks: masks,
    "mirrored left to right": lambda masks: masks[:, :, ::-1],
    "mirrored top to bottom": lambda masks: masks[:, ::-1],
    "turned by 180 degrees": lambda masks: masks[:, ::-1, ::-1],
    "with rows and columns exchanged": lambda masks: masks.swapaxes(1, 2),
    "turned by 90 degrees to the left": lambda masks: np.rot90(masks, 1, (1, 2)),
    "turned by 90 degrees to the right": lambda masks: np.rot90(masks, -1, (1, 2)),
    "with rows and columns exchanged, then turned by 180 degrees": lambda masks: masks.swapaxes(1, 2)[:, ::-1, ::-1],
}
"""The eight ways in which an array may lie on a picture, of masks (2, H, W)."""

_MOST_LEFT = 0.6  # what another way must leave at most of the disagreement (1 - Dice)
_NEARLY_ALL, _MOST = 0.9, 0.75  # share of the cases that agree better the other way
_LEAST_GAIN = 0.03  # of the mean Dice; more where there are fewer cases
_GAIN_OF_ONE_CASE = 0.2
_LEAST_CASES, _STANDARD_ERRORS, _NO_DOUBT = 5, 3.0, 0.2  # of the gain in correlation of discs and photographs
_SIDE = 64  # pixels of the small pictures that are correlated


class Turns:
    """Collects how well masks agree in each of the eight ways; threads may share it."""

    def __init__(self) -> None:
        self.agreement: list[list[float]] = []

    def add(self, nifti: _Masks, picture: _Masks) -> None:
        """Compare the masks (2, H, W) of one case, by the mean Dice of the structures that the picture shows."""
        shown = [structure for structure, mask in enumerate(picture) if mask.any()]
        if shown and nifti.any():
            turned = (turn(nifti) for turn in TURNS.values())
            self.agreement.append([_dice(each[shown], picture[shown]) for each in turned])

    def refuse_other(self) -> str | None:
        """What to say where another way than the one in which they are read fits better, but not much.

        Raises:
            DataError: another way fits much better, in nearly all cases.
        """
        if not self.agreement:
            return None
        as_read, best, better, way = _compared(self.agreement)
        gain, cases = best - as_read, len(self.agreement)
        text = (
            f"masks agree with the others better {way} (mean Dice {100 * best:.1f}) than as their header says "
            f"({100 * as_read:.1f}), in {better:.0%} of {cases} cases"
        )
        much = 1 - best <= _MOST_LEFT * (1 - as_read) and gain > max(_LEAST_GAIN, _GAIN_OF_ONE_CASE / cases)
        if much and better >= _NEARLY_ALL:
            raise DataError(f"{text}: the header does not say how they lie; {NIFTI_FIX}")
        return f"{text}; look at some" if better >= _MOST and gain > _LEAST_GAIN else None


NIFTI_FIX = (
    "export them as PNG, or labels (height, width) as "
    "nibabel.Nifti1Image(labels.T[..., None], numpy.diag([-1, -1, 1, 1]))"
)


def brightness(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> list[float]:
    """How well masks (2, H, W) lie on the bright part of their photograph (H, W, 3), in each of the eight ways.

    Returns:
        The correlations of the labels 0, 1 and 2 with the photograph's greys; none if either is flat.
    """
    side = (_SIDE, _SIDE)
    grey = cv2.resize(image, side, interpolation=cv2.INTER_AREA).mean(axis=2, dtype=np.float32)
    small = cv2.resize(masks.sum(axis=0, dtype=np.float32), side, interpolation=cv2.INTER_AREA)
    if grey.std() < 1 or not small.std():
        return []
    return [float(np.corrcoef(grey.ravel(), turn(small[None]).ravel())[0, 1]) for turn in TURNS.values()]


def misfit(found: Sequence[Sequence[float]]) -> tuple[str, bool] | None:
    """Whether the masks of a split lie better on the photographs in another way than in which they are read.

    In crops around the disc little tells the ways apart: on Drishti-GS and REFUGE the mean correlation falls by 0.00 to
    0.06 when masks are turned. So the gain of each case counts, not its size alone. Read rightly, no split of these
    gains in any way; of their 28 turned readings all are told but 3, two of them top to bottom on REFUGE, whose masks
    are nearly symmetric that way.

    Args:
        found: the `brightness` of each case.

    Returns:
        What to say, and whether there is no doubt; None if they lie well, or if there are too few cases to tell.
    """
    values = np.array([each for each in found if each])  # (cases, 8)
    if len(values) < _LEAST_CASES:
        return None
    as_read, best, better, way = _compared(values)
    gains = values[:, list(TURNS).index(way)] - values[:, 0]
    if gains.mean() <= _STANDARD_ERRORS * gains.std(ddof=1) / len(gains) ** 0.5 or better < _MOST:
        return None
    text = (
        f"the masks lie on the bright part of their photographs better {way} (mean correlation {best:.2f}) than as "
        f"they are read ({as_read:.2f}), in {better:.0%} of {len(values)} cases"
    )
    return text, best - as_read > _NO_DOUBT


def _compared(found: Sequence[Sequence[float]] | NDArray[np.float64]) -> tuple[float, float, float, str]:
    """The mean as the masks are read, the best mean of all ways, the share of cases that gain, and the best way."""
    values = np.array(found)  # (cases, 8)
    means = values.mean(axis=0)
    best = int(means.argmax())
    return means[0], means[best], float(np.mean(values[:, best] > values[:, 0])), list(TURNS)[best]


def _dice(masks: _Masks, others: _Masks) -> float:
    """The mean Dice over structures (S, H, W); 0 for frames of different size."""
    if masks.shape != others.shape:
        return 0.0
    both, sizes = (masks & others).sum(axis=(1, 2)), masks.sum(axis=(1, 2)) + others.sum(axis=(1, 2))
    return float(np.mean(2 * both / sizes))


FIT_MARGIN = 0.05
"""By how much the masks must correlate better with the stored than with the turned photograph, to lie on the former."""


def check_fit(photograph: Photograph, masks: NDArray[np.bool_], path: Path) -> None:
    """Check that masks (2, H, W) lie on a photograph as it is shown, turned by its EXIF orientation.

    Raises:
        SharedFaultError: the two differ in size; or the masks fit the photograph's stored pixels clearly better than
            the turned ones. The error is about `path`, the file of the masks.
    """
    image = photograph.pixels
    if image.shape[:2] != masks.shape[1:]:
        sizes = f"{frame_text(masks[0])} pixels, but its photograph has {frame_text(image)}"
        if photograph.orientation > 1 and masks.shape[1:] == (image.shape[1], image.shape[0]):
            sizes += f" after its {_turn_text(photograph)}: {_TURN_FIX}"
        raise SharedFaultError(sizes, path)
    if may_lie_as_stored(photograph) and masks.any():
        shown, stored = exif_fit(photograph, masks)
        if stored > shown + FIT_MARGIN:
            raise SharedFaultError(
                f"fits its photograph as it is stored (correlation {stored:.2f}), not as its "
                f"{_turn_text(photograph)} shows it ({shown:.2f}): {_TURN_FIX}",
                path,
            )


def may_lie_as_stored(photograph: Photograph) -> bool:
    """Whether masks of the photograph's size may have been drawn on its stored pixels, before EXIF turns them."""
    height, width = photograph.pixels.shape[:2]
    return photograph.orientation > 1 and (height == width or photograph.orientation < 5)


_TURN_FIX = "save the photograph upright without EXIF orientation, or draw the mask on the upright photograph"


def _turn_text(photograph: Photograph) -> str:
    return f"EXIF orientation {photograph.orientation}"


_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""By EXIF orientation, what turns an upright photograph back as it is stored."""


_SHOWN = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "with rows and columns exchanged",
    6: "turned by 90 degrees to the right",
    7: "with rows and columns exchanged, then turned by 180 degrees",
    8: "turned by 90 degrees to the left",
}
"""By EXIF orientation, how a photograph is shown (one of `TURNS`)."""


def drawn_as_stored(photograph: Photograph, masks: NDArray[np.bool_]) -> bool:
    """Whether masks (S, H, W) were drawn on a photograph's stored pixels, before EXIF turns them.

    Their frame tells, if it has the stored photograph's shape and not the upright one's; else they must fit the stored
    pixels clearly better (`FIT_MARGIN`).
    """
    if may_lie_as_stored(photograph) and masks.shape[1:] == photograph.pixels.shape[:2]:
        shown, stored = exif_fit(photograph, masks)
        return stored > shown + FIT_MARGIN
    height, width = photograph.pixels.shape[:2]
    return photograph.orientation >= 5 and height != width and masks.shape[1:] == (width, height)


def as_shown(photograph: Photograph, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks (S, H, W) that were drawn on a photograph's stored pixels, turned as EXIF turns the photograph."""
    return np.ascontiguousarray(TURNS[_SHOWN[photograph.orientation]](masks))


def exif_fit(photograph: Photograph, masks: NDArray[np.bool_]) -> tuple[float, float]:
    """How well masks (2, H, W) fit a photograph that EXIF turns: as it is shown, and as it is stored.

    The measure is the correlation of the green channel with the labels 0, 1 and 2, since a disc is brighter than the
    retina and its cup brighter still.
    """
    green = Image.fromarray(np.ascontiguousarray(photograph.pixels[..., 1]))
    labels = masks.sum(axis=0, dtype=np.float64).ravel()
    fits = []
    for picture in (green, green.transpose(_UNDO[photograph.orientation])):
        values = np.asarray(picture, np.float64).ravel()
        fits.append(float(np.corrcoef(values, labels)[0, 1]) if values.std() and labels.std() else 0.0)
    return fits[0], fits[1]


def undecided(photograph: Photograph, masks: NDArray[np.bool_]) -> str:
    """What to say where EXIF turns a photograph and nothing shows that its masks (2, H, W) were drawn on it so."""
    if not (may_lie_as_stored(photograph) and masks.any()):
        return ""
    shown, stored = exif_fit(photograph, masks)
    if shown > stored + FIT_MARGIN:
        return ""
    return (
        f"its photograph is turned by {_turn_text(photograph)}, and the mask fits it as well as it is stored "
        f"(correlations {shown:.2f} and {stored:.2f}): look whether the mask is turned too"
    )
