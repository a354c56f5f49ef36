"""The rows of `cases.csv`: what the written masks of a photograph show, and what its reader is warned of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.box import Box
from fundus_seg.data.dicom import Header
from fundus_seg.data.field import field_box
from fundus_seg.data.framing import Framing, disc_framing
from fundus_seg.data.laterality import eye_of_name, eye_of_side
from fundus_seg.data.layout import of_phantom
from fundus_seg.data.names import name_of
from fundus_seg.data.stray import stray_parts
from fundus_seg.errors import Problem
from fundus_seg.inference.case_columns import (
    CHANGED,
    COLUMNS,
    CROP,
    DISC,
    IDENTIFIERS,
    MILLIMETRES,
    PITCH,
    PIXELS,
    RATIOS,
    RIM,
    SCORES,
)
from fundus_seg.inference.case_warnings import (
    AT_EDGE,
    CUP_OUTSIDE,
    FRAMING,
    LOW_TRUST,
    NO_DISC,
    OTHER_EYE,
    PHANTOM,
    STRAY,
    UNREADABLE,
    UNUSUAL_RATIO,
    verdict,
)
from fundus_seg.inference.roi import ONE_COLOUR, Region
from fundus_seg.metrics import (
    area_cup_to_disc_ratio,
    dice,
    horizontal_cup_to_disc_ratio,
    isnt_order,
    pixels_outside,
    rim_profile,
    vertical_cup_to_disc_ratio,
)
from fundus_seg.metrics.anatomy import is_usual_ratio, shape_faults, touches_edge
from fundus_seg.metrics.overlap import bounding_box
from fundus_seg.metrics.photograph import is_of_one_colour
from fundus_seg.protocol import STRUCTURES

if TYPE_CHECKING:
    from fundus_seg.inference.watched import Trusted


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
    trusted: Trusted | None = None,
    raw: NDArray[np.bool_] | None = None,
    header: Header | None = None,
    name: Callable[[str], str] = str,
) -> dict[str, Any]:
    """The row of a photograph that could be read.

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
        trusted: how far the masks can be trusted, if that is calibrated.
        raw: the masks (2, h, w) of the region before post-processing; None: it has changed nothing.
        header: of a DICOM file.
        name: gives the name in the table of a patient's or study's identifier.
    """
    height, width = image.shape[:2] if masks is None else masks[0].shape
    row = _empty(path, region.how, inputs) | {"height": height, "width": width}
    if header is not None:
        spacing = header.spacing or (math.nan, math.nan)
        row |= dict(zip(PITCH, spacing, strict=True))
        row |= dict(zip(IDENTIFIERS, (_plain(name(each)) for each in (header.patient, header.study)), strict=True))
    told = _told_eye(path, header)
    row |= told
    applies = {region.reason: bool(region.reason), ONE_COLOUR: is_of_one_colour(image)}
    masked = masks is not None and region.box is not None and bool(masks[0].any())
    if masks is not None and region.box is not None:
        box = region.box
        disc, cup = masks
        written = np.stack([disc, cup & disc])
        seen = written if box == Box.whole(disc.shape) else box.cut(written.transpose(1, 2, 0)).transpose(2, 0, 1)
        found = seen if raw is None else raw
        row |= dict(zip(CROP, (box.x, box.y, box.width, box.height), strict=True))
        row |= dict(zip(PIXELS, map(int, written.sum(axis=(1, 2))), strict=True))
        row["cup_pixels_outside_disc"] = pixels_outside(cup, disc)
        row |= dict(zip(CHANGED, map(int, (found ^ seen).sum(axis=(1, 2))), strict=True))
        row["framing"] = disc_framing(seen[0])
        if true is not None:
            row |= dict(zip(SCORES, (dice(*pair) for pair in zip(written, true, strict=True)), strict=True))
        applies |= {NO_DISC: not masked, CUP_OUTSIDE: row["cup_pixels_outside_disc"] > 0}
        applies |= dict.fromkeys(shape_faults(*found), True)
        if masked:
            aside = "" if region.how == "crop" else _eye_aside(row | _place(disc), image)
            row |= {} if told["eye"] or not aside else {"eye": aside, "eye_from": "disc"}
            row |= _measures(row, written)
            applies |= {
                AT_EDGE: touches_edge(disc) or touches_edge(seen[0]),
                UNUSUAL_RATIO: not is_usual_ratio(*written),
                OTHER_EYE: {told["eye"], aside} == {"OD", "OS"},
                FRAMING: framing is not None and not framing.holds(row["framing"]),
            }
    if trusted is not None:
        row |= trusted.values(row["vertical_cdr"])
        applies[LOW_TRUST] = trusted.declined
    applies |= {
        PHANTOM: masks is not None and phantom and not of_phantom(path),
        STRAY: true is not None and any(stray_parts(true)),
    }
    return _concluded(row, [name for name, found in applies.items() if found], masked=masked)


def unreadable_row(path: Path, problems: Sequence[Problem], inputs: str | None) -> dict[str, Any]:
    """The row of a photograph that cannot be read; its reason is what is wrong with the file."""
    said = "; ".join(problem.text for problem in problems)
    return _concluded(_empty(path, "none", inputs) | _told_eye(path, None), [UNREADABLE], masked=False, said=said)


def _empty(path: Path, how: str, inputs: str | None) -> dict[str, Any]:
    """A row in which nothing is known of a photograph but where it lies."""
    row: dict[str, Any] = {column.name: "" if column.kind == "text" else math.nan for column in COLUMNS}
    return row | {"photograph": harmless(path), "roi": how, "inputs": inputs or "", "isnt": "unknown"}


def _concluded(row: Mapping[str, Any], warnings: Sequence[str], *, masked: bool, said: str = "") -> dict[str, Any]:
    """A row with its warnings, and the status and reason that follow from them."""
    status, reason = verdict(warnings, masked=masked, said=said)
    eye = row["eye"] or "unknown"
    return {**row, "eye": eye, "warning": ";".join(warnings), "status": status, "reason": reason}


def _told_eye(path: Path, header: Header | None) -> dict[str, str]:
    """The eye that the header tells, or else the name, and which of them it is."""
    told = {"header": header.eye if header else "", "name": eye_of_name(name_of(path))}
    return next(({"eye": eye, "eye_from": where} for where, eye in told.items() if eye), {"eye": "", "eye_from": ""})


def _eye_aside(row: Mapping[str, Any], image: NDArray[np.uint8]) -> str:
    """The eye that the side of the disc tells."""
    diameter = math.sqrt(row["disc_height"] * row["disc_width"])
    return eye_of_side(row["disc_x"], row["disc_y"], diameter, field_box(image))


def _measures(row: Mapping[str, Any], written: NDArray[np.bool_]) -> dict[str, Any]:
    """What the written masks (2, H, W) measure, with a disc in them: its place, ratios, and the rim around the clock.

    Ratios are those of `metrics.clinical`, the rim those of `metrics.rim`, both in the frame of the photograph as it is
    shown. Sizes in millimetres are there where `row` has the height and width of a pixel.
    """
    disc, cup = (mask[bounding_box(written[0])] for mask in written)
    ratios = (vertical_cup_to_disc_ratio, horizontal_cup_to_disc_ratio, area_cup_to_disc_ratio)
    rim = rim_profile(disc, cup)
    order = isnt_order(rim, row["eye"] if row["eye"] in ("OD", "OS") else None)
    height, width = (row[name] for name in PITCH)
    pixel = height * width
    sizes = (height * disc.shape[0], width * disc.shape[1], *(pixel * np.count_nonzero(mask) for mask in (disc, cup)))
    return {
        **_place(written[0]),
        **dict(zip(RATIOS, (ratio(disc, cup) for ratio in ratios), strict=True)),
        **dict(zip(RIM, map(float, rim), strict=True)),
        "isnt": {True: "yes", False: "no", None: "unknown"}[order.holds],
        "isnt_broken": ";".join(order.broken),
        **dict(zip(MILLIMETRES, map(float, sizes), strict=True)),
    }


def _place(disc: NDArray[np.bool_]) -> dict[str, float]:
    """The middle of the rectangle around a disc (H, W), in pixels from the upper left corner, its width and height."""
    rows, columns = bounding_box(disc)
    middle = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
    return dict(zip(DISC, (*middle, columns.stop - columns.start, rows.stop - rows.start), strict=True))


def harmless(path: Path) -> str:
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
    for name, column in zip(STRUCTURES, SCORES, strict=True):
        if not math.isnan(row[column]):
            texts.append(f"Dice {name} {100 * row[column]:.1f}")
    told = {FRAMING: "not framed as in training", ONE_COLOUR: "a picture of one colour"}
    return [*texts, *(text for warning, text in told.items() if warning in warnings)]
