"""The rows of `cases.csv`: what the written masks of a photograph show, and what its reader is warned of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.data.box import Box
from fundus_seg.data.dicom import Header
from fundus_seg.data.framing import Framing, disc_framing
from fundus_seg.data.layout import in_phantom
from fundus_seg.data.stray import stray_parts
from fundus_seg.inference.roi import (
    ANOTHER_SIZE,
    NO_EYE,
    NOT_LISTED,
    OUTSIDE,
    TOO_SMALL,
    TWO_DISCS,
    UNCONFIRMED,
    Region,
)
from fundus_seg.metrics import dice, pixels_outside, vertical_cup_to_disc_ratio
from fundus_seg.metrics.overlap import bounding_box
from fundus_seg.progress import Progress
from fundus_seg.protocol import STRUCTURES

NO_DISC, CUP_OUTSIDE, FRAMING, PHANTOM = "no_disc", "cup_outside_disc", "framing", "phantom_model"
STRAY, ONE_COLOUR = "stray_truth", "one_colour"
"""What the column `warning` holds, several of them joined by semicolons."""

_BLOCKS, _LEAST_SPREAD = 16, 8
"""Of 109 whole photographs and 327 crops around their discs, none spreads by less than 51; at 8 % of their light, the
whole ones still by 9."""

_CROP = ("crop_x", "crop_y", "crop_width", "crop_height")
_DISC = ("disc_x", "disc_y", "disc_width", "disc_height")
_SCORES = tuple(f"dsc_{name}" for name in STRUCTURES)


_DICOM = ("eye", "patient", "study", "pixel_height_mm", "pixel_width_mm")


def columns(*, scored: bool, dicom: bool = False) -> tuple[str, ...]:
    """The columns of the table, with the scores or without, and with what the headers of DICOM files say."""
    return (
        *("photograph", "height", "width", "roi", *_CROP),
        *(f"{name}_pixels" for name in STRUCTURES),
        *("cup_pixels_outside_disc", *_DISC, "vertical_cdr", "framing"),
        *(_SCORES if scored else ()),
        *(_DICOM if dicom else ()),
        *("warning", "inputs"),
    )


def row_of(
    path: Path,
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_] | None,
    true: NDArray[np.bool_] | None,
    *,
    region: Region,
    framing: Framing | None,
    phantom: bool,
    inputs: str | None,
    header: Header | None = None,
    name: Callable[[str], str] = str,
) -> dict[str, Any]:
    """The row of a photograph.

    Args:
        path: the photograph.
        image: its pixels (H, W, 3).
        masks: the predicted masks (2, H, W). What is written of the cup, and counted here, are its pixels in the disc.
            None: there is no region to predict, and the row is empty but for the reason.
        true: the true masks, if there are any.
        region: the part of the photograph that the networks saw.
        framing: of the photographs that trained the model; None: not known.
        phantom: whether these were the phantom's.
        inputs: digest of the files that the row comes from.
        header: of a DICOM file.
        name: gives the name in the table of a patient's or study's identifier.
    """
    height, width = image.shape[:2] if masks is None else masks[0].shape
    row: dict[str, Any] = {"photograph": _harmless(path), "height": height, "width": width}
    row |= dict.fromkeys(columns(scored=True, dicom=True)[len(row) :], math.nan) | {"roi": region.how, "inputs": inputs}
    row |= dict.fromkeys(_DICOM, "")
    if header is not None:
        spacing = header.spacing or (math.nan, math.nan)
        of_header = (header.eye, _plain(name(header.patient)), _plain(name(header.study)), *spacing)
        row |= dict(zip(_DICOM, of_header, strict=True))
    applies = {region.reason: bool(region.reason), ONE_COLOUR: is_of_one_colour(image)}
    if masks is not None and region.box is not None:
        box = region.box
        disc, cup = masks
        written = (disc, cup & disc)
        row |= dict(zip(_CROP, (box.x, box.y, box.width, box.height), strict=True))
        row |= {f"{name}_pixels": int(np.count_nonzero(mask)) for name, mask in zip(STRUCTURES, written, strict=True)}
        row["cup_pixels_outside_disc"] = pixels_outside(cup, disc)
        row |= _place(disc)
        row["vertical_cdr"] = vertical_cup_to_disc_ratio(*written)
        row["framing"] = disc_framing(disc if box == Box.whole(disc.shape) else box.cut(disc))
        if true is not None:
            row |= dict(zip(_SCORES, (dice(*pair) for pair in zip(written, true, strict=True)), strict=True))
        applies |= {
            NO_DISC: not disc.any(),
            CUP_OUTSIDE: row["cup_pixels_outside_disc"] > 0,
            FRAMING: framing is not None and bool(disc.any()) and not framing.holds(row["framing"]),
        }
    applies |= {
        PHANTOM: phantom and not in_phantom(path.parent),
        STRAY: true is not None and any(stray_parts(true)),
    }
    return row | {"warning": ";".join(name for name, found in applies.items() if found)}


def _place(disc: NDArray[np.bool_]) -> dict[str, float]:
    """The middle of the rectangle around a disc (H, W), in pixels from the upper left corner, its width and height."""
    if not disc.any():
        return {}
    rows, columns = bounding_box(disc)
    middle = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
    return dict(zip(_DISC, (*middle, columns.stop - columns.start, rows.stop - rows.start), strict=True))


def is_of_one_colour(image: NDArray[np.uint8]) -> bool:
    """Whether a picture shows nothing: black, white or any other one colour, at most with noise or small letters on it.

    The picture is averaged over 16 x 16 blocks. It is of one colour if, in each channel, nine tenths of the blocks lie
    within less than 8 grey levels. That finds a closed shutter and an empty page. It does not find a picture of
    something else than an eye, nor an eye that is out of focus.

    Args:
        image: (H, W, 3) uint8.
    """
    blocks = np.asarray(Image.fromarray(image).resize((_BLOCKS, _BLOCKS), Image.Resampling.BOX))
    low, high = np.percentile(blocks, [5, 95], axis=(0, 1))
    return bool((high - low).max() < _LEAST_SPREAD)


def _harmless(path: Path) -> str:
    """The path as text that no spreadsheet takes for a formula."""
    return f"./{path}" if str(path).startswith(_FORMULA) else str(path)


def _plain(identifier: str) -> str:
    """An identifier as text that no spreadsheet takes for a formula."""
    return f"'{identifier}" if identifier.startswith(_FORMULA) else identifier


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def texts_of(row: Mapping[str, Any]) -> list[str]:
    """What an overlay says of a photograph beside its name."""
    warnings = row["warning"].split(";")
    if row["disc_pixels"] == 0:
        texts = ["no disc found"]
    elif row["cup_pixels"] == 0:
        texts = ["no cup found"]
    else:
        texts = [f"vCDR {row['vertical_cdr']:.2f}"]
    for name, column in zip(STRUCTURES, _SCORES, strict=True):
        if not math.isnan(row[column]):
            texts.append(f"Dice {name} {100 * row[column]:.1f}")
    told = {FRAMING: "not framed as in training", ONE_COLOUR: "a picture of one colour"}
    return [*texts, *(text for warning, text in told.items() if warning in warnings)]


def tell_warnings(rows: Iterable[Mapping[str, Any]], framing: Framing | None, progress: Progress) -> None:
    """Say of how many photographs the warnings are, a line for each kind.

    Args:
        rows: the rows of the photographs, as `row_of` gives them or as text.
        framing: of the photographs that trained the model; None: not known.
        progress: gets the lines.
    """
    warned: dict[str, list[Mapping[str, Any]]] = {}
    count = 0
    for row in rows:
        count += 1
        for warning in filter(None, row["warning"].split(";")):
            warned.setdefault(warning, []).append(row)

    def tell(warning: str, text: str) -> None:
        if warning in warned:
            progress.warn(f"{len(warned[warning])} of {count} photographs: {text}")

    tell(PHANTOM, "not the phantom's, on which alone the model was trained; its masks say nothing about them")
    tell(NO_EYE, "no disc found in the photograph, so there is no mask; --roi full or a box predicts them all the same")
    tell(
        UNCONFIRMED,
        "no disc found at first, but the network draws one that is framed as in training, so they were taken for "
        "crops; look at them",
    )
    tell(TWO_DISCS, "two discs found, so there is no mask; give each its box with --roi")
    tell(TOO_SMALL, "the disc has too few pixels for a mask; give larger photographs")
    tell(NOT_LISTED, "not in the table that --roi gives, so there is no mask")
    tell(
        ANOTHER_SIZE,
        "neither the whole photograph nor the crop of the manifest that --roi gives, by its size, so there is no mask",
    )
    tell(OUTSIDE, "the box that --roi gives lies outside the photograph, so there is no mask")
    tell(ONE_COLOUR, "of one colour, with no eye to be seen; what masks they have say nothing")
    tell(NO_DISC, "no disc found")
    tell(CUP_OUTSIDE, "the cup leaves the disc; its pixels there stand in no mask (column cup_pixels_outside_disc)")
    tell(STRAY, "the true mask has stray parts, and is scored as it is; look at it, since truth is never cleaned")
    if framing is not None:
        shares = [round(100 * float(row["framing"])) for row in warned.get(FRAMING, [])]
        seen = "-".join(map(str, dict.fromkeys([min(shares), max(shares)]))) if shares else ""
        trained = f"{100 * framing.low:.0f}-{100 * framing.high:.0f} %"
        tell(FRAMING, f"disc is {seen} % of the frame, the model was trained on {trained}: not framed as in training")
    elif count:
        progress.line(
            "the checkpoint does not say how its training photographs were framed, since an older fundus-seg wrote it: "
            "framing is not checked, and --roi auto takes photographs whole"
        )
