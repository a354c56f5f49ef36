"""One photograph in several panels: plain, with the truth, with what each network predicts, enlarged about the disc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fundus_seg.viz.contours import check_masks, draw_resized, keys
from fundus_seg.viz.strips import Strips
from fundus_seg.viz.zoom import Window, beside, padded, window_around

_LINES = 160
"""A line's width is this part of a panel's side."""
_LINES_OF_TEXT = 22
"""The text's height is this part of a panel's side."""


@dataclass(frozen=True, eq=False)
class Panel:
    """What one panel shows of the photograph.

    Attributes:
        title: what it is: `photograph`, `truth`, the name of an operator.
        masks: (2, H, W) boolean, structures ("disc", "cup"), drawn in their colours; None draws none.
        truth: (2, H, W) boolean, drawn in dashes of white; None draws none.
        text: short text beside the title, such as a score.
        zoomed: whether it shows the square about the disc; if not, it shows the whole photograph and where that lies.
    """

    title: str
    masks: NDArray[np.bool_] | None = None
    truth: NDArray[np.bool_] | None = None
    text: str = ""
    zoomed: bool = True


def draw_panels(
    image: NDArray[np.uint8],
    panels: Sequence[Panel],
    *,
    name: str,
    texts: Sequence[str] = (),
    columns: int = 3,
    side: int = 320,
) -> NDArray[np.uint8]:
    """Draw panels of one photograph in rows, its name above them, a legend of the lines below.

    All zoomed panels show the same square: about the true disc where a panel has one, else about all predicted ones,
    else the whole photograph.

    Args:
        image: (H, W, 3) uint8, RGB.
        panels: what to show, at least one panel.
        name: name of the case; shortened if it is too long.
        texts: short texts that stand beside it.
        columns: number of panels in a row, at most.
        side: height and width of a panel, in pixels.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: There is no panel, the image is not (H, W, 3) uint8, or masks do not fit it.
    """
    if not panels:
        raise ValueError("there is no panel to draw")
    for panel in panels:
        check_masks(image, panel.masks, panel.truth)
    truths = [panel.truth for panel in panels if panel.truth is not None and panel.truth.any()]
    window = window_around(truths or [panel.masks for panel in panels if panel.masks is not None])
    strips = Strips(side, max(12, side // _LINES_OF_TEXT))
    drawn = [_titled(_panel(image, panel, window, side), panel, strips) for panel in panels]
    rows = [beside(drawn[first : first + columns]) for first in range(0, len(drawn), columns)]
    width = max(row.shape[1] for row in rows)
    across = Strips(width, round(1.1 * strips.gap))
    there = {"masks": any(panel.masks is not None for panel in panels), "truth": bool(truths)}
    named = keys(1.5 * side / _LINES, **there)
    return np.concatenate(
        [
            across.caption(name, texts),
            *(padded(row, 0, 0, 0, width - row.shape[1]) for row in rows),
            *([across.legend(named)] if named else []),
        ]
    )


def _panel(image: NDArray[np.uint8], panel: Panel, window: Window | None, side: int) -> NDArray[np.uint8]:
    """The picture (side, side, 3) of one panel."""
    width = side / _LINES
    if panel.zoomed and window is not None:
        masks, truth = window.cut(panel.masks), window.cut(panel.truth)
        return draw_resized(window.cut_image(image), masks, truth, (side, side), width)
    scale = side / max(image.shape[:2])
    height, columns = (max(1, round(scale * length)) for length in image.shape[:2])
    drawn = draw_resized(image, panel.masks, panel.truth, (height, columns), width)
    if window is not None:
        window.mark(drawn, scale)
    above, left = (side - height) // 2, (side - columns) // 2
    return padded(drawn, above, side - height - above, left, side - columns - left)


def _titled(picture: NDArray[np.uint8], panel: Panel, strips: Strips) -> NDArray[np.uint8]:
    return np.concatenate([strips.caption(panel.title, [panel.text] if panel.text else []), picture])
