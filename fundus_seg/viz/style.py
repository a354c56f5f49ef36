"""The look that all plots share: colours, hatches, lines, figures, legends; and how figures are saved.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; hatches and line styles repeat
what the colours say. Figures use neither pyplot nor the user's matplotlibrc, so equal data give equal files.
"""

from __future__ import annotations

import contextlib
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.text import Text

from fundus_seg.errors import printable
from fundus_seg.runs.atomic import atomic_path

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
_HATCHES = ("", "////", "", "\\\\\\\\", "", "....", "", "xxxx")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 1)))
_MARKERS = "osD^vPX*"

_FONT = "DejaVu Sans"
"""Comes with matplotlib."""
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "savefig.dpi": 200,
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's font
    "svg.hashsalt": "fundus-seg",  # else ids are random
    "text.parse_math": False,  # a dollar in a name is a dollar
}
MEDIAN = {"color": "black", "linewidth": 1.5}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as `<stem>.png` and `<stem>.svg`, atomically; equal figures give equal bytes.

    Raises:
        RunError: the folder cannot be written.
    """
    write_out(figure)
    _fall_back(figure)
    paths = []
    for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        paths.append(stem.with_name(f"{stem.name}.{form}"))
        with plot_style(), atomic_path(paths[-1]) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `_fall_back` has said it once for all
            figure.savefig(temporary, format=form, metadata=metadata)
    return paths


def write_out(figure: Figure) -> None:
    r"""Write out the characters of a figure's texts that would not show, or that no file can hold: ESC as `\x1b`."""
    for text in figure.findobj(Text):
        if isinstance(text, Text) and (shown := printable(text.get_text(), keep="\n")) != text.get_text():
            text.set_text(shown)


def _fall_back(figure: Figure) -> None:
    """Let texts with letters that the usual font lacks, as Chinese ones, use an installed font that has them.

    Without such a font a warning says which letters are drawn as boxes in the PNG; the SVG keeps them as text.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    lacking = {ord(letter) for text in texts for letter in text.get_text() if not letter.isspace()}
    lacking -= _letters(font_manager.findfont(_FONT))
    if not lacking:
        return
    fonts = sorted(font_manager.fontManager.ttflist, key=lambda font: (font.name, font.fname))
    upright = [font for font in fonts if font.style == "normal" and font.weight in (400, "normal", "regular")]
    fallback = next((font.name for font in upright if lacking <= _letters(font.fname)), None)
    if fallback is None:
        letters = "".join(map(chr, sorted(lacking)))
        warnings.warn(
            f"no installed font has {letters}: boxes in PNG plots; install one, as Noto Sans CJK", stacklevel=3
        )
        return
    for text in texts:
        text.set_fontfamily([_FONT, fallback])


def _letters(file: str) -> set[int]:
    """Code points of the letters that the font in a file has; none of a file that cannot be read."""
    try:
        font = font_manager.get_font(file)
        return set() if font.family_name.startswith("Last Resort") else set(font.get_charmap())  # that has boxes alone
    except (OSError, RuntimeError):
        return set()


def plot_style() -> contextlib.AbstractContextManager[None]:
    """Within, figures are drawn and saved in this look, whatever the user's matplotlibrc says."""
    return matplotlib.style.context(["default", _STYLE])


def figure_of(title: str, size: tuple[float, float], rows: int, columns: int, **shared: Any) -> tuple[Figure, Any]:
    """A figure with its title, and its axes (rows, columns); sizes in inches."""
    figure = Figure(figsize=size, layout="constrained")
    # A title does not widen a constrained figure, so it is broken where the figure ends.
    figure.suptitle(textwrap.fill(title, int(13 * size[0]), break_on_hyphens=False), fontsize=9)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def legend(figure: Figure, keys: Sequence[Artist]) -> None:
    """Put a legend below the axes, in as many columns as the figure's width holds."""
    width = int(12 * figure.get_figwidth())
    for key in keys:
        key.set_label(textwrap.fill(str(key.get_label()), width - 6, break_on_hyphens=False))
    longest = max(len(str(key.get_label())) for key in keys) + 6
    columns = max(1, width // longest)
    figure.legend(handles=list(keys), loc="outside lower center", ncols=min(columns, len(keys)))


def box(number: int) -> dict[str, Any]:
    """Look of the boxes of operator number `number`, counted from 0."""
    return {"facecolor": _of(PALETTE, number), "hatch": _of(_HATCHES, number), "edgecolor": "black", "alpha": 0.6}


def dot(number: int) -> dict[str, Any]:
    """Look of the dots of unseen domain number `number`."""
    return {"color": _of(PALETTE, number), "marker": _of(_MARKERS, number)}


def point(number: int) -> dict[str, Any]:
    """Look of the point of network number `number`; of 64 networks no two look alike."""
    return {"color": _of(PALETTE, number), "marker": _of(_MARKERS, number + number // len(PALETTE))}


def line(number: int) -> dict[str, Any]:
    """Look of the lines of operator number `number`."""
    return {"color": _of(PALETTE, number), "linestyle": _of(_LINES, number)}


def _of(looks: Sequence[Any], number: int) -> Any:
    return looks[number % len(looks)]
