"""The parts of the pages that are computed from the code and from benchmarks/*.md; `make docs` writes them again.

Such a part of a page begins with `<!-- NAME: written by make docs -->` and ends with `<!-- NAME: end -->`; PARTS has a
function for each name. A test asserts that writing the pages again changes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import made_distances
import made_scaling

REPOSITORY = Path(__file__).parents[1]
PAGES = (REPOSITORY / "README.md", REPOSITORY / "docs" / "distances.md", REPOSITORY / "docs" / "scaling.md")
PARTS = {**made_distances.PARTS, **made_scaling.PARTS}


def write() -> None:
    """Write all pages again."""
    for page in PAGES:
        page.write_text(made(page.read_text("utf8")), "utf8")


def made(text: str) -> str:
    """The text of a page with its computed parts made anew."""
    part = re.compile(r"(<!-- ([\w-]+): written by make docs[^>]*-->\n).*?(<!-- \2: end -->)", re.DOTALL)
    return part.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


if __name__ == "__main__":
    write()
