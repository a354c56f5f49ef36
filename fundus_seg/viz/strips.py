"""Strips of text for above and below a picture: a caption in rows that fit, and a legend of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fundus_seg.errors import printable

_INK = (238, 238, 238)
PAPER = (24, 24, 24)
"""RGB of the ground of the strips."""

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""


@dataclass(frozen=True)
class Key:
    """A line of the legend.

    Attributes:
        text: what the line stands for.
        colour: of the line.
        width: of the line, in pixels.
        dashed: whether it has gaps.
    """

    text: str
    colour: Colour
    width: float
    dashed: bool = False


class Strips:
    """The strips above and below a picture.

    Args:
        width: of the strips, in pixels.
        height: of the text, in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.gap = height
        self.font, self.bold = _font("DejaVuSans", height), _font("DejaVuSans-Bold", height)

    def caption(self, name: str, texts: Sequence[str]) -> NDArray[np.uint8]:
        """The strip with the name of the case and the texts."""
        fitting = _shortened(_legible(name), self.bold, self.width - 2 * self.gap)
        pieces = [_Piece(fitting, self.bold), *(_Piece(_legible(text), self.font) for text in texts)]
        return self._strip(pieces)

    def legend(self, keys: Sequence[Key]) -> NDArray[np.uint8]:
        """The strip that names the lines."""
        return self._strip([_Piece(key.text, self.font, key) for key in keys])

    def _strip(self, pieces: Sequence[_Piece]) -> NDArray[np.uint8]:
        rows = list(self._rows(pieces))
        pitch = round(1.5 * self.gap)
        strip = Image.new("RGB", (self.width, len(rows) * pitch + round(0.4 * self.gap)), PAPER)
        draw = ImageDraw.Draw(strip)
        for number, row in enumerate(rows):
            x, middle = float(self.gap), (number + 0.5) * pitch + 0.2 * self.gap
            for piece in row:
                if piece.key is not None:
                    self._sample(draw, x, middle, piece.key)
                draw.text((x + self._indent(piece), middle), piece.text, _INK, piece.font, anchor="lm")
                x += self._length(piece)
        return np.asarray(strip)

    def _rows(self, pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
        """The pieces in rows that fit."""
        row: list[_Piece] = []
        used = float(self.gap)
        for piece in pieces:
            length = self._length(piece)
            if row and used + length > self.width:
                yield row
                row, used = [], float(self.gap)
            row.append(piece)
            used += length
        yield row

    def _indent(self, piece: _Piece) -> float:
        return 0 if piece.key is None else 3 * self.gap

    def _length(self, piece: _Piece) -> float:
        return self._indent(piece) + piece.font.getlength(piece.text) + 1.2 * self.gap

    def _sample(self, draw: ImageDraw.ImageDraw, x: float, y: float, key: Key) -> None:
        """A piece of a line as it is drawn on the photograph."""
        end = x + 2.5 * self.gap
        step = (end - x) / 3.5 if key.dashed else end - x
        while x < end:
            stop = min(end, x + (step / 2 if key.dashed else step))
            draw.rectangle([x, y - key.width / 2, stop, y + key.width / 2 - 0.5], fill=key.colour)
            x += step


@dataclass(frozen=True)
class _Piece:
    """A text in a strip, behind a line if it is of the legend."""

    text: str
    font: ImageFont.FreeTypeFont
    key: Key | None = None


@cache
def _font(name: str, height: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_font_file(name)), height)


def _font_file(name: str) -> Path:
    """A font that comes with matplotlib: the same letters on every machine."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")


@cache
def _letters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_file("DejaVuSans"))).get_charmap())


def _legible(text: str) -> str:
    r"""The text with characters that the font lacks written as `\u773c`."""
    return "".join(
        each if ord(each) in _letters() else each.encode("unicode_escape").decode("ascii") for each in printable(text)
    )


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, or its beginning and end, so that it is no wider than this."""
    kept = len(text)
    shown = text
    while font.getlength(shown) > width and kept > 2:
        kept = min(kept - 1, int(kept * width / font.getlength(shown)) + 1)
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
