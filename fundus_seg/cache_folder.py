"""Where things lie that can be made again: resized photographs, the phantom, the compiled operator."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "FUNDUS_SEG_CACHE"


def cache_folder() -> Path:
    """$FUNDUS_SEG_CACHE, or `fundus-seg` in the user's cache folder. Never inside a data root."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fundus-seg"
