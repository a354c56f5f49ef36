"""The page of a folder of predictions: every photograph with its status, the worst first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fundus_seg.data.box import Box
from fundus_seg.data.coding import CODINGS, DOFE
from fundus_seg.data.io import read_image, read_mask
from fundus_seg.data.layout import of_phantom
from fundus_seg.data.names import name_of
from fundus_seg.errors import DataError, RunError, counted
from fundus_seg.inference.case_columns import BY_NAME, CROP
from fundus_seg.inference.case_warnings import UNREADABLE, WARNINGS
from fundus_seg.inference.output import Output
from fundus_seg.progress import SILENT, Progress
from fundus_seg.reporting.page.blocks import Block, Gallery, Lines, Part, Picture, Section, Shown, Text, grid
from fundus_seg.reporting.page.pictures import Drawing
from fundus_seg.reporting.page.render import rendered

MOST_PICTURES = 60
"""Photographs that the page shows at most, the worst first: so its size has a bound."""
_WORST_FIRST = ("declined", "check", "ok")
_SHOWN = (
    Shown("photograph", "photograph"),
    Shown("status", "status"),
    Shown("reason", "reason"),
    Shown("vertical CDR", "vertical_cdr", 3, "vcdr_low", "vcdr_high"),
    Shown("area CDR", "area_cdr", 3),
    Shown("predicted DSC, disc", "predicted_dsc_disc", 3),
    Shown("predicted DSC, cup", "predicted_dsc_cup", 3),
    Shown("DSC, disc", "dsc_disc", 3),
    Shown("DSC, cup", "dsc_cup", 3),
    Shown("eye", "eye"),
    Shown("ISNT rule", "isnt"),
    Shown("framing", "framing", 2),
    Shown("region", "roi"),
)


def predictions_page(folder: Path, *, with_photographs: bool = False, progress: Progress = SILENT) -> tuple[str, int]:
    """The page of what `predict` wrote into a folder, and how many photographs it shows.

    Identifiers of patients and studies are not in it; the paths of photographs are.

    Args:
        folder: where `cases.csv`, the masks and `predictions.json` lie.
        with_photographs: whether the worst photographs are shown with the contours of their masks, `MOST_PICTURES` at
            most.
        progress: told which photographs cannot be shown.

    Raises:
        RunError: the folder has no table, or a damaged one.
    """
    rows, made_by = _read(folder)
    pictures = list(_pictures(folder, rows, progress)) if with_photographs else []
    phantom = rows["photograph"].map(lambda path: of_phantom(Path(path)))
    parts = []
    for kind in (False, True):
        if len(own := rows[phantom == kind]):
            shown = [each for each in pictures if each.phantom is kind]
            parts.append(Part(kind, tuple(_sections(own, made_by, shown, asked=with_photographs))))
    return rendered("report.html", title="Predictions of photographs", parts=parts, left_out=[]), len(pictures)


def _read(folder: Path) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """The rows of the table, numbers as numbers, the worst status first; and what made them."""
    try:
        rows = pd.read_csv(folder / "cases.csv", dtype=str, keep_default_na=False)
        made_by = json.loads((folder / "predictions.json").read_text("utf8"))["made_by"]
        numbers = {name: pd.to_numeric(rows[name]) for name in map(str, rows) if BY_NAME[name].kind != "text"}
        order = rows["status"].map(_WORST_FIRST.index)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'cases.csv'}: not a whole table of `fundus-seg predict`; predict again") from error
    return rows.assign(**numbers, order=order).sort_values("order", kind="stable", ignore_index=True), made_by


def _sections(
    rows: pd.DataFrame, made_by: Mapping[str, Any], pictures: Sequence[Picture], *, asked: bool
) -> Iterator[Section]:
    counts = Counter(rows["status"])
    summary = [f"{counted(len(rows), 'photograph')}: {', '.join(f'{counts[each]} {each}' for each in _WORST_FIRST)}"]
    warned = Counter(name for names in rows["warning"] for name in filter(None, names.split(";")))
    summary += [f"{WARNINGS[name].words}: {count} of {len(rows)}" for name, count in warned.most_common()]
    yield Section("summary", "What became of the photographs", (Lines(tuple(summary)),))
    title = "A row for each photograph; in brackets the interval of the ratio, where trust is calibrated"
    yield Section("photographs", "Photographs, the worst status first", (grid(rows, _SHOWN, title),))
    shown: tuple[Block, ...] = (
        Text(
            f"The {len(pictures)} with the worst status of {counted(len(rows), 'photograph')}, with the written masks."
        ),
        Gallery(tuple(pictures)),
    )
    lacking = "" if pictures else "none can be shown" if asked else "`fundus-seg predict --report --with-photographs`"
    yield Section("pictures", "Photographs with contours", () if lacking else shown, lacking)
    made = pd.DataFrame({"what": name, "value": json.dumps(value)} for name, value in made_by.items())
    columns = (Shown("what", "what"), Shown("value", "value"))
    yield Section(
        "made-by", "What made the masks", (grid(made, columns, "As predictions.json records it", live=False),)
    )


def _pictures(folder: Path, rows: pd.DataFrame, progress: Progress) -> Iterator[Picture]:
    """The first photographs, with the contours of their masks, if they have any."""
    unread = []
    chosen = rows[rows["warning"] != UNREADABLE].head(MOST_PICTURES).to_dict("records")
    with progress.task("reading the photographs of the page", total=len(chosen)) as advance:
        for row in chosen:
            path = Path(row["photograph"])
            try:
                drawing = Drawing(read_image(path))
                _add_mask(drawing, folder, name_of(path), row)
            except DataError:
                unread.append(path)
            else:
                said = f"{row['status']}: {row['reason']}" if row["reason"] else row["status"]
                yield drawing.picture("", path.name, said, phantom=of_phantom(path))
            advance()
    progress.left_out("photograph", "in the tables of the page, but no longer readable to be shown there", unread)


def _add_mask(drawing: Drawing, folder: Path, name: str, row: Mapping[Any, Any]) -> None:
    """Add the written mask of a photograph; that of a crop is cut out of the mask of the whole photograph."""
    for form, coding in (("png", DOFE), ("nifti", CODINGS["labels"])):
        mask = Output(folder, form, None).mask(name)  # type: ignore[arg-type]
        if mask.is_file():
            masks = read_mask(mask, coding)
            if row["roi"] == "crop":
                masks = Box(*(int(row[side]) for side in CROP)).cut(masks.transpose(1, 2, 0)).transpose(2, 0, 1)
            drawing.add("mask", 1, masks)
