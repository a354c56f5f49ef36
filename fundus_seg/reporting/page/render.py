"""The page as one text of HTML: all that it needs stands in it, and it may load and run nothing else."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from fundus_seg.errors import printable
from fundus_seg.progress import SILENT, LeftOut, Progress
from fundus_seg.reporting.page.asked import Asked
from fundus_seg.reporting.page.blocks import Part
from fundus_seg.reporting.page.results import Results
from fundus_seg.reporting.page.sections import SECTIONS, part_of
from fundus_seg.runs.atomic import write_text
from fundus_seg.version import __version__


def report_page(
    found: Sequence[Results], what: Asked, *, left_out: Sequence[LeftOut] = (), progress: Progress = SILENT
) -> str:
    """The page of some results: patients and the phantom each have all sections of their own.

    Args:
        found: as `find_results` gives them.
        what: metrics, and what was made of photographs.
        left_out: what was left out when they were found.
        progress: shows what is done.
    """
    with progress.task("writing the sections", total=len(found) * len(SECTIONS)) as advance:
        parts = [part_of(results, what, advance) for results in found]
    return rendered("report.html", title="Report of runs", parts=parts, left_out=[*map(str, left_out)])


def rendered(template: str, *, title: str, parts: Sequence[Part], left_out: Sequence[str]) -> str:
    """A template of this folder, filled.

    Every text is escaped, and characters that reverse or hide what follows are written out. The page's policy lets it
    run its own script alone, by its digest, and load nothing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = _marked
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        title=title,
        parts=parts,
        left_out=left_out,
        version=__version__,
        style=Markup(_resource("page.css")),
        script=Markup(script),
        script_digest=digest,
    )


def _resource(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf8")


def _marked(text: str) -> Markup:
    """A text with what stands between backticks, as commands do, marked as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(text)))))


def _plain(value: Any) -> Any:
    """A text with each character written out that would not show; elements of the page as they are."""
    return value if isinstance(value, Markup | jinja2.Undefined) else printable(value)


def write_page(page: str, out: Path, *, pictures: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
    """Write the page, after its size was said, and of how many photographs it shows something.

    Raises:
        RunError: it cannot be written.
    """
    shown = f"; it shows {pictures} photographs, so treat it as you treat them" if pictures else "; no photograph in it"
    say(f"{out}: {len(page.encode()) / 1e6:.1f} MB{shown}")
    write_text(out, page)
