"""The photograph that is chosen: its measures, its contours enlarged, and the box that the user may draw anew."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from fundus_seg.app.elements import tag, text
from fundus_seg.app.measure import Measurer, Picture
from fundus_seg.app.session import Photograph
from fundus_seg.data.box import Box
from fundus_seg.errors import FundusSegError, one_line
from fundus_seg.inference.roi import AUTO, Roi
from fundus_seg.protocol import STRUCTURES

_NUMBERS = {
    "vertical_cdr": "Vertical cup-to-disc ratio",
    "horizontal_cdr": "Horizontal ratio",
    "area_cdr": "Area ratio",
    "predicted_dsc_disc": "Predicted DSC, disc",
    "predicted_dsc_cup": "Predicted DSC, cup",
}
"""Columns of the table that stand above the pictures, where they hold a number."""
_EYES = {"OD": "right eye", "OS": "left eye"}
_ISNT = {"yes": "kept", "no": "not kept"}
_SIDES = ("Left", "Top", "Width", "Height")
_SMALLEST_BOX = 8
"""Least side of a box that is drawn, in pixels of the photograph: whoever draws less has only clicked."""
_LARGEST_ZOOM = 6


class Chosen:
    """The chosen photograph, shown in an element of the page.

    Args:
        place: the element.
        measurer: measures photographs.
        publish: gives the address of a picture.
        measure: measures a photograph anew, and shows it.
        remove: removes a photograph.
    """

    def __init__(
        self,
        place: Element,
        measurer: Measurer,
        publish: Callable[[Picture], str],
        measure: Callable[[Photograph, Roi], Awaitable[None]],
        remove: Callable[[Photograph], None],
    ) -> None:
        self._place, self._measurer, self._publish = place, measurer, publish
        self._measure, self._remove = measure, remove
        self._busy = False

    def show(self, photograph: Photograph) -> None:
        """Show a photograph in the place of what was shown."""
        self._photograph, self._busy = photograph, False
        self._place.clear()
        with self._place:
            measured = photograph.measured
            with tag("div", "title"):
                text("h2", photograph.name)
                ui.button("Remove", on_click=lambda: self._remove(photograph)).props("flat no-caps dense")
            if photograph.problem or measured is None:
                text("p", photograph.problem or "Measuring …", "dim", "role=status")
            if measured is None:
                return
            with tag("p", "verdict", "aria-live=polite"):
                text("span", measured.row["status"], f"status {measured.row['status']}")
                text("span", measured.row["reason"] or "no warning")
            if measured.whole:
                _measures(measured.row)
                with tag("div", "pictures"):
                    if measured.enlarged:
                        self._enlarged(measured.enlarged)
                    self._whole(measured.whole, measured.box)
            _columns(measured.row)

    def _enlarged(self, picture: Picture) -> None:
        """What the networks saw, with its contours to switch off and on, under a slider that enlarges it."""
        with tag("figure"):
            text("figcaption", "What the network saw")
            with tag("div", "zoomed", 'tabindex=0 aria-label="the enlarged disc; arrows move it"') as window:
                stage = tag("div", "stage")
            with stage:
                self._picture(picture)
            with tag("div", "tools"):
                for structure in STRUCTURES:
                    switch = ui.checkbox(structure.capitalize(), value=True).classes(f"key {structure}")
                    switch.on_value_change(
                        lambda event, name=f"no-{structure}": stage.classes(
                            **({"remove": name} if event.value else {"add": name})
                        )
                    )
                with tag("div", "zooming"):
                    text("span", "Zoom", "dim")
                    zoom = ui.slider(min=1, max=_LARGEST_ZOOM, step=0.25, value=1)
                zoom.props("aria-label=Zoom").classes("zoom")
                zoom.on("update:model-value", js_handler=f"value => zoomTo({window.id}, value)")

    def _whole(self, picture: Picture, box: Box | None) -> None:
        """The whole photograph, on which a box is drawn around the disc, or given by its numbers."""
        with tag("figure"):
            text("figcaption", "The whole photograph")
            with tag("div", "stage draw") as stage:
                self._picture(picture)
                self._drawn = ui.html(_frames(picture, box), sanitize=False).classes("over")
            for kind in ("pointerdown", "pointermove", "pointerup", "pointercancel"):
                stage.on(
                    kind,
                    lambda event: self._drag(event, picture, box),
                    throttle=0.03 if kind == "pointermove" else 0,
                    js_handler="event => dragged(event, emit)",
                )
            asked = "Is the dashed box in the wrong place? " if box else ""
            text("p", f"{asked}Draw a box around the optic disc, and the photograph is measured again.", "dim")
            with tag("form", "tools", 'onsubmit="return false"'):
                values = (box.x, box.y, box.width, box.height) if box else (None,) * len(_SIDES)
                fields = [
                    ui.number(side, value=value, precision=0, min=1 if side in _SIDES[2:] else None)
                    .props("dense outlined")
                    .classes("side")
                    for side, value in zip(_SIDES, values, strict=True)
                ]
                self._given = ui.button("Measure this box").props("no-caps unelevated type=submit")
                self._given.on_click(lambda: self._by_numbers([field.value for field in fields]))
                ui.button("Find the disc again", on_click=lambda: self._again(AUTO)).props("no-caps flat")

    def _picture(self, picture: Picture) -> None:
        paths = "".join(
            f'<path class="contour {structure}" d="{path}"/>'
            for structure, path in zip(STRUCTURES, picture.contours, strict=False)
        )
        width, height = picture.size
        ui.html(
            f'<img src="{self._publish(picture)}" width="{width}" height="{height}" alt="" draggable="false">'
            f'<svg viewBox="0 0 {width} {height}">{paths}</svg>',
            sanitize=False,
        )

    async def _drag(self, event: GenericEventArguments, picture: Picture, seen: Box | None) -> None:
        """Show the box that is drawn; at its end, measure what is framed around it, or show what was seen again."""
        if self._busy:
            return
        *ends, ended = event.args
        (left, right), (top, bottom) = (
            sorted(round(end * side) for end in ends[axis::2])
            for axis, side in enumerate((picture.part.width, picture.part.height))
        )
        if min(right - left, bottom - top) < _SMALLEST_BOX:
            self._drawn.set_content(_frames(picture, seen))
            return
        disc = Box(left, top, right - left, bottom - top)
        box = self._measurer.box_around(disc)
        self._drawn.set_content(_frames(picture, box, disc))
        if ended and (roi := _roi(box.x, box.y, box.width, box.height)):
            await self._again(roi)

    async def _by_numbers(self, sides: Sequence[float | None]) -> None:
        """Measure the box of these numbers (left, top, width, height), and keep the keyboard at the button."""
        if roi := _roi(*sides):
            await self._again(roi)
            # the client of the place, since the form that was sent is gone
            self._place.client.run_javascript(f"getHtmlElement({self._given.id})?.focus()")

    async def _again(self, roi: Roi) -> None:
        if not self._busy:
            self._busy = True
            await self._measure(self._photograph, roi)


def _roi(*sides: float | None) -> Roi | None:
    """The box of four numbers, in pixels of the photograph; None, and the page says why, where they make none."""
    if None in sides:
        ui.notify(f"Give all four numbers of the box: {', '.join(_SIDES).lower()}, in pixels.", type="warning")
        return None
    try:
        return Roi.parse(",".join(f"{side:.0f}" for side in sides))
    except FundusSegError as error:
        ui.notify(one_line(error), type="warning")
        return None


def _frames(picture: Picture, box: Box | None, disc: Box | None = None) -> str:
    """The box that the networks see, dashed, and the one that is drawn around the disc, as SVG over a picture."""
    width, height = picture.size
    scale = width / picture.part.width
    frames = "".join(
        f'<rect class="{kind}" x="{scale * each.x:.1f}" y="{scale * each.y:.1f}"'
        f' width="{scale * each.width:.1f}" height="{scale * each.height:.1f}"/>'
        for kind, each in (("box", box), ("drawn", disc))
        if each
    )
    return f'<svg viewBox="0 0 {width} {height}">{frames}</svg>'


def _measures(row: Mapping[str, Any]) -> None:
    """The ratios of a photograph with the trust in them, which eye it is, and the order of the rim's widths."""
    values = {label: f"{row[column]:.2f}" for column, label in _NUMBERS.items() if not math.isnan(row[column])}
    if row["eye"] in _EYES:
        values["Eye"] = _EYES[row["eye"]]
    if row["isnt"] in _ISNT:
        values["ISNT order of the rim"] = _ISNT[row["isnt"]]
    beside = {_NUMBERS["vertical_cdr"]: _interval(row)}
    if not values:
        return
    with tag("dl", "measures"):
        for label, value in values.items():
            with tag("div"):
                text("dt", label)
                with tag("dd"):
                    text("span", value)
                    text("small", beside.get(label, ""))


def _interval(row: Mapping[str, Any]) -> str:
    """The interval of the vertical cup-to-disc ratio; empty where trust is not calibrated."""
    low, high = row["vcdr_low"], row["vcdr_high"]
    return "" if math.isnan(low) or math.isnan(high) else f"interval {low:.2f} to {high:.2f}"


def _columns(row: Mapping[str, Any]) -> None:
    """All columns of the table that hold something."""
    with tag("details"):
        text("summary", "All columns of the table")
        with tag("dl", "columns"):
            for name, value in row.items():
                if value != "" and not (isinstance(value, float) and math.isnan(value)):
                    text("dt", name)
                    text("dd", f"{value:.6g}" if isinstance(value, float) else str(value))
