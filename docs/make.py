"""The parts of the pages that are computed from the code and from benchmarks/*.md; `make docs` writes them again.

Such a part of a page begins with `<!-- NAME: written by make docs -->` and ends with `<!-- NAME: end -->`; PARTS has a
function for each name. The page of settings is made as a whole. A test asserts that writing the pages again changes
nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import made_distances
import made_scaling
import made_sets
from made_table import page_below_title

from fundus_seg.config.describe import describe, markdown_page

DOCS = Path(__file__).parent
PAGES = (
    DOCS.parent / "README.md",
    DOCS / "data.md",
    DOCS / "distances.md",
    DOCS / "methods.md",
    DOCS / "recipe.md",
    DOCS / "scaling.md",
)
"""The pages with computed parts."""
PARTS = {
    **made_distances.PARTS,
    **made_scaling.PARTS,
    **made_sets.PARTS,
    "methods": lambda: page_below_title("methods.md"),
    "recipe": lambda: page_below_title("recipe.md"),
}


def pages() -> dict[Path, str]:
    """Every page that is computed, or a part of it, as it should stand."""
    return {page: made(page.read_text("utf8")) for page in PAGES} | {
        DOCS / "settings.md": markdown_page(describe()) + "\n"
    }


def made(text: str) -> str:
    """The text of a page with its computed parts made anew."""
    part = re.compile(r"(<!-- ([\w-]+): written by make docs[^>]*-->\n).*?(<!-- \2: end -->)", re.DOTALL)
    return part.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, "utf8")
