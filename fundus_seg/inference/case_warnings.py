"""What a photograph's row warns of: the words for it, the status that follows from it, and the lines about all rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fundus_seg.data.framing import Framing
from fundus_seg.inference.roi import (
    ANOTHER_SIZE,
    NO_EYE,
    NOT_LISTED,
    ONE_COLOUR,
    OUTSIDE,
    TOO_SMALL,
    TWO_DISCS,
    UNCONFIRMED,
)
from fundus_seg.progress import Progress

Status = Literal["ok", "check", "declined"]
"""Nothing warns of the masks; something does; or there is no mask, no disc in it, or too little trust in it."""

UNREADABLE, LOW_TRUST = "unreadable", "low_predicted_dsc"
NO_DISC, CUP_OUTSIDE, FRAMING, PHANTOM = "no_disc", "cup_outside_disc", "framing", "phantom_model"
AT_EDGE, UNUSUAL_RATIO, OTHER_EYE, STRAY = "disc_at_edge", "unusual_vcdr", "eye_contradicted", "stray_truth"


@dataclass(frozen=True)
class Warned:
    """A thing that the column `warning` may name.

    Attributes:
        words: what it is, as the column `reason` says it.
        advice: what the line about all photographs adds.
    """

    words: str
    advice: str = ""


WARNINGS = {
    UNREADABLE: Warned("cannot be read"),
    PHANTOM: Warned("not the phantom's, on which alone the model was trained", "its masks say nothing about them"),
    NO_EYE: Warned(
        "no disc found in the photograph", "so there is no mask; --roi full or a box predicts them all the same"
    ),
    UNCONFIRMED: Warned(
        "no disc found at first, but the network draws one that is framed as in training",
        "so they were taken for crops; look at them",
    ),
    TWO_DISCS: Warned("two discs found", "so there is no mask; give each its box with --roi"),
    TOO_SMALL: Warned("the disc has too few pixels for a mask", "give larger photographs"),
    NOT_LISTED: Warned("not in the table that --roi gives", "so there is no mask"),
    ANOTHER_SIZE: Warned(
        "neither the whole photograph nor the crop of the manifest that --roi gives, by its size", "so there is no mask"
    ),
    OUTSIDE: Warned("the box that --roi gives lies outside the photograph", "so there is no mask"),
    ONE_COLOUR: Warned("of one colour, with no eye to be seen", "what masks they have say nothing"),
    NO_DISC: Warned("no disc found", "the mask is empty"),
    LOW_TRUST: Warned("the predicted DSC is below --decline-below"),
    CUP_OUTSIDE: Warned(
        "the cup leaves the disc", "its pixels there stand in no mask (column cup_pixels_outside_disc)"
    ),
    "disc_in_parts": Warned("the predicted disc has several parts"),
    "cup_in_parts": Warned("the predicted cup has several parts"),
    "disc_with_holes": Warned("the predicted disc has holes"),
    "cup_with_holes": Warned("the predicted cup has holes"),
    AT_EDGE: Warned("the disc reaches the edge of what the network saw", "it may be cut there"),
    UNUSUAL_RATIO: Warned("the vertical cup-to-disc ratio is an unusual one"),
    OTHER_EYE: Warned(
        "the disc lies on the side of the other eye than header or name say", "turned, mirrored or misnamed"
    ),
    STRAY: Warned("the true mask has stray parts", "it is scored as it is; look at it, since truth is never cleaned"),
    FRAMING: Warned("not framed as in training"),
}
"""By their names in the column `warning`, in the order of the lines."""


def verdict(warnings: Sequence[str], *, masked: bool, said: str = "") -> tuple[Status, str]:
    """The status of a photograph, and its reason in words.

    Args:
        warnings: names of `WARNINGS`.
        masked: whether there is a mask with a disc in it.
        said: the words for what cannot be read.
    """
    words = [said if warning == UNREADABLE and said else WARNINGS[warning].words for warning in warnings]
    kept = masked and LOW_TRUST not in warnings
    return ("check" if warnings else "ok") if kept else "declined", "; ".join(words)


def tell_warnings(rows: Iterable[Mapping[str, Any]], framing: Framing | None, progress: Progress) -> None:
    """Say how many photographs have which status, and of how many the warnings are, a line for each kind.

    Args:
        rows: the rows of the photographs, as `case_rows` gives them or as text.
        framing: of the photographs that trained the model; None: not known.
        progress: gets the lines.
    """
    warned: dict[str, list[Mapping[str, Any]]] = {}
    statuses: Counter[str] = Counter()
    for row in rows:
        statuses[row["status"]] += 1
        for warning in filter(None, row["warning"].split(";")):
            warned.setdefault(warning, []).append(row)
    if count := statuses.total():
        progress.line(f"status: {statuses['ok']} ok, {statuses['check']} to check, {statuses['declined']} declined")
    unreadable: dict[str, list[str]] = {}
    for row in warned.pop(UNREADABLE, []):
        unreadable.setdefault(row["reason"], []).append(row["photograph"])
    for reason, names in unreadable.items():
        progress.left_out("photograph", reason, names)
    for name in (name for name in WARNINGS if name in warned):
        told, about = WARNINGS[name], warned[name]
        text = f"{told.words}; {told.advice}" if told.advice else told.words
        if name == FRAMING and framing is not None:
            shares = [round(100 * float(row["framing"])) for row in about]
            seen = "-".join(map(str, dict.fromkeys([min(shares), max(shares)])))
            trained = f"{100 * framing.low:.0f}-{100 * framing.high:.0f} %"
            text = f"disc is {seen} % of the frame, the model was trained on {trained}: {text}"
        progress.warn(f"{len(about)} of {count} photographs: {text}")
    if framing is None and count:
        progress.line(
            "the checkpoint does not say how its training photographs were framed, since an older fundus-seg wrote it: "
            "framing is not checked, and --roi auto takes photographs whole"
        )


def told_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `tell_warnings` needs of a row: many rows then take little memory."""
    needed = ("photograph", "reason") if row["warning"] == UNREADABLE else ()
    return {name: row[name] for name in ("status", "warning", "framing", *needed)}
