"""The page, drawn by NiceGUI: photographs come in on the left, the chosen one is shown with its measures."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from nicegui import ui
from nicegui.events import GenericEventArguments, UploadEventArguments

from fundus_seg.app.chosen import Chosen
from fundus_seg.app.elements import tag, text
from fundus_seg.app.gate import MOST_BYTES, Gate
from fundus_seg.app.measure import Measurer, Picture
from fundus_seg.app.session import Photograph, Session
from fundus_seg.errors import FundusSegError, counted, one_line
from fundus_seg.inference.roi import AUTO, Roi

_HERE = Path(__file__).parent
_TITLE = "Optic disc and cup"
_RECONNECT_SECONDS = 60
"""After this time a page that has been left is forgotten, with its photographs."""
_ABOUT = (
    "Research software, not a medical device. Photographs stay on this machine; they are deleted when the page is left."
)
_BEGIN = (
    "Drop photographs of the back of the eye on the left, or choose them: whole photographs, or crops around the disc.",
    "Each is measured: the outlines of disc and cup, their ratios, and a status that says whether to look twice.",
    "Where the disc was not found, draw a box around it. Download the table when all is well.",
)
_DROP = """
<div class="drop">
  <q-btn unelevated no-caps color="primary" label="Choose photographs" @click="props.pickFiles"></q-btn>
  <span>or drop them here</span>
  <span class="hidden"><q-uploader-add-trigger /></span>
</div>
"""


def application(measurer: Measurer, worker: Executor, folder: Path, address: str, about: Sequence[str]) -> FastAPI:
    """The page as an ASGI application.

    Args:
        measurer: measures photographs.
        worker: a single thread, in which photographs are measured.
        folder: where photographs lie while their page is open.
        address: where the page is, as `http://127.0.0.1:8765`.
        about: lines about the networks.
    """
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pictures: dict[str, Path] = {}

    @made.get("/pictures/{key}")
    def shown(key: str) -> FileResponse:
        file = pictures.get(key)
        if file is None or not file.is_file():
            raise HTTPException(404)
        return FileResponse(file, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    def publish(picture: Picture) -> str:
        """The address of a picture."""
        pictures[picture.key] = picture.file
        return f"/pictures/{picture.key}"

    def page() -> None:
        Page(Session(measurer, folder / secrets.token_hex(8)), worker, publish, about)

    ui.run_with(
        made,
        root=page,
        title=_TITLE,
        favicon="👁",
        dark=None,
        reconnect_timeout=_RECONNECT_SECONDS,
        tailwind=False,
        show_welcome_message=False,
    )
    made.add_middleware(Gate, address=address)
    return made


class Page:
    """One open page.

    Args:
        session: its photographs.
        worker: a single thread, in which they are measured.
        publish: gives the address of a picture.
        about: lines about the networks.
    """

    def __init__(
        self, session: Session, worker: Executor, publish: Callable[[Picture], str], about: Sequence[str]
    ) -> None:
        self._session, self._worker = session, worker
        self._entries: list[Entry] = []
        self._shown: Photograph | None = None
        ui.context.client.on_delete(self._leave)
        ui.add_css(_HERE / "page.css")
        ui.add_head_html(f"<script>{(_HERE / 'page.js').read_text('utf8')}</script>")
        with tag("header"):
            text("h1", _TITLE)
            text("p", _ABOUT, "about")
            for line in about:
                text("p", line, "dim")
        with tag("div", "board"):
            with tag("section", "left", "aria-label=Photographs"):
                self._uploads()
                self._refused = tag("ul", "refused", "role=alert")
                self._list = tag("ul", "entries")
                with tag("div", "tools"):
                    self._download = ui.button("Download the table", on_click=self._table).props("no-caps unelevated")
                    self._count = text("span", "", "dim", "role=status")
            self._place = tag("section", "right", 'aria-label="The chosen photograph"')
        self._chosen = Chosen(self._place, session.measurer, publish, self._measure, self._remove)
        self._show_count()
        self._begin()

    def _uploads(self) -> None:
        files = ui.upload(multiple=True, auto_upload=True, max_file_size=MOST_BYTES, on_upload=self._take)
        files.props("flat no-thumbnails").classes("uploads").add_slot("header", _DROP)
        files.add_slot("list", "<div></div>")
        # what is sent leaves the queue, so that it is not kept, and may be sent again
        files.on("uploaded", js_handler=f"() => getElement({files.id}).$refs.qRef.removeUploadedFiles()")
        limit = f"larger than {MOST_BYTES // 2**20} MB"
        named = "each => emit(each.map(one => one.file.name))"
        files.on("rejected", lambda event: self._refuse(event, limit), js_handler=named)
        named = "each => emit(each.files.map(one => one.name))"
        files.on("failed", lambda event: self._refuse(event, "it could not be sent to the program"), js_handler=named)

    def _begin(self) -> None:
        """Show what to do first."""
        self._place.clear()
        with self._place, tag("ol", "begin"):
            for step in _BEGIN:
                text("li", step)

    async def _take(self, event: UploadEventArguments) -> None:
        """Take a photograph, and measure it."""
        name = event.file.name
        try:
            photograph = self._session.place(name)
        except FundusSegError as error:
            self._show_refusal(f"{name}: {one_line(error)}")
            return
        try:
            await event.file.save(photograph.path)
        except OSError as error:
            self._session.remove(photograph)
            photograph.delete()
            reason = f"it cannot be copied to the temporary folder ({error.strerror}); free some space there"
            self._show_refusal(f"{name}: {reason}")
            return
        with self._list:
            self._entries.append(Entry(photograph, self._choose))
        self._show_count()
        if self._shown is None:
            self._choose(photograph)
        await self._measure(photograph)

    async def _measure(self, photograph: Photograph, roi: Roi = AUTO) -> None:
        """Measure a photograph and show what came out, if it is still there."""
        entry = next((each for each in self._entries if each.photograph is photograph), None)
        if entry is None:
            return
        entry.show_waiting()
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._session.measure, photograph, roi)
        except Exception:
            photograph.problem = "this is a fault of the program: the terminal where it was started tells more"
            raise
        finally:
            if entry in self._entries:
                entry.show_result()
                self._show_count()
                if photograph is self._shown:
                    self._chosen.show(photograph)

    def _choose(self, photograph: Photograph) -> None:
        self._shown = photograph
        for entry in self._entries:
            entry.mark(entry.photograph is photograph)
        self._chosen.show(photograph)

    def _remove(self, photograph: Photograph) -> None:
        place, entry = next((n, each) for n, each in enumerate(self._entries) if each.photograph is photograph)
        self._entries.remove(entry)
        entry.item.delete()
        self._session.remove(photograph)
        self._worker.submit(photograph.delete)
        self._show_count()
        if self._entries:
            self._choose(self._entries[min(place, len(self._entries) - 1)].photograph)
        else:
            self._shown = None
            self._begin()

    def _leave(self) -> None:
        """Forget what the page has shown."""
        self._session.photographs.clear()
        self._worker.submit(self._session.delete)

    def _table(self) -> None:
        """Give the table to the browser, to be saved."""
        ui.download.content(self._session.table(), "cases.csv", "text/csv")

    def _show_count(self) -> None:
        """Show how many photographs are measured."""
        done = sum(entry.photograph.measured is not None for entry in self._entries)
        self._download.set_enabled(bool(done))
        given = counted(len(self._entries), "photograph")
        self._count.set_text(given if done == len(self._entries) else f"{done} of {given} measured")

    def _refuse(self, event: GenericEventArguments, reason: str) -> None:
        for name in event.args:
            self._show_refusal(f"{name}: {reason}")

    def _show_refusal(self, line: str) -> None:
        """Show a line about a photograph that was not taken."""
        with self._refused:
            text("li", line)


class Entry:
    """A photograph in the list.

    Args:
        photograph: the photograph.
        choose: chooses it.
    """

    def __init__(self, photograph: Photograph, choose: Callable[[Photograph], None]) -> None:
        self.photograph = photograph
        with tag("li") as self.item, tag("button", "entry", "type=button") as self._button:
            text("span", photograph.name, "name")
            self._ratio = text("span", "", "ratio")
            self._status = text("span", "", "status")
        self._button.on("click", lambda: choose(photograph))

    def show_waiting(self) -> None:
        """Show that it is being measured."""
        self._show("measuring", math.nan)

    def show_result(self) -> None:
        """Show what was measured."""
        measured = self.photograph.measured
        if measured:
            self._show(measured.row["status"], measured.row["vertical_cdr"])
        else:
            self._show("failed", math.nan)

    def mark(self, chosen: bool) -> None:
        """Show whether it is the chosen one."""
        self._button.props("aria-current=true" if chosen else "aria-current=false")

    def _show(self, status: str, ratio: float) -> None:
        self._status.set_text(status)
        self._status.classes(replace=f"status {status}")
        self._ratio.set_text("" if math.isnan(ratio) else f"{ratio:.2f}")
