"""The documentation site: how Sphinx builds it from the Markdown pages (`make docs`). Its navigation is docs/index.md.

The source folder is the checkout, not docs/, so that the links between the pages, README.md, CONTRIBUTING.md and
benchmarks/ are the same on the site as in the checkout.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

from fundus_seg.version import __version__

sys.path.insert(0, str(Path(__file__).parent))
import made_reference

project = "fundus-seg"
author = copyright = "The fundus-seg developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "benchmarks/*.md",
    "examples/*/README.md",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
exclude_patterns = [".*", "build", "runs", "site", "benchmarks/methods.md", "benchmarks/recipe.md"]
"""The last two are part of docs/methods.md and docs/recipe.md."""

myst_heading_anchors = 4
smartquotes = False  # options are written --so
default_role = "code"
"""`A name` in a docstring is code, as in Markdown."""
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"fundus-seg {version}"
html_copy_source = False
templates_path = ["templates"]
html_additional_pages = {"index": "redirect.html"}

SECTIONS = Config(napoleon_use_ivar=True)
"""How the sections of a docstring are shown: the attributes of a class as a list."""


def setup(app: Sphinx) -> None:
    """Write the pages of the commands and of the Python interface first; then read pages and docstrings as below."""
    app.connect("builder-inited", lambda _: made_reference.write())
    app.connect("source-read", _name_pages_by_title)
    app.connect("autodoc-process-docstring", _read_sections)
    app.connect("autodoc-process-signature", _shorten)
    app.connect("autodoc-skip-member", lambda app, what, name, *_: True if name == "model_config" else None)


def _name_pages_by_title(app: Sphinx, page: str, source: list[str]) -> None:
    """A link that shows the name of a Markdown file shows the title of that page, or of its section, on the site."""
    source[0] = re.sub(r"\[[\w./]+\.md\]\(", "[](", source[0])


def _read_sections(app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]) -> None:
    """Read Args, Returns, Raises and so on, but not in docstrings of attributes, which have none.

    The extension napoleon would take what stands before a colon in those for a type.
    """
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, SECTIONS, app, what, name, documented, options).lines()


def _shorten(
    app: Sphinx, what: str, name: str, documented: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """The signature without that of a settings class, whose fields are listed below it."""
    if isinstance(documented, type) and issubclass(documented, BaseModel):
        return "", None
    return signature and signature.replace("<factory>", "..."), returned
