"""Matplotlib's figures as elements of a page: small, without a background, each with identifiers of its own."""

from __future__ import annotations

import io
import re
import warnings
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

from fundus_seg.viz.style import plot_style, write_out

_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_JOINS = "stroke-linejoin: round; stroke-linecap: butt"
"""What matplotlib's own style sheet says."""
_ROUNDED = ("d", "x", "y", "width", "height", "points", "transform")
"""Attributes whose numbers are places, of which a hundredth of a point is enough."""
_REFERENCE = re.compile(r"url\(#([^)]*)\)")


def inline_svg(figure: Figure, name: str) -> Markup:
    """The figure as an `svg` element, whose texts are texts.

    Args:
        figure: the figure.
        name: a word that no other figure of the page has: equal identifiers of two drawings would be taken for one.
    """
    write_out(figure)
    drawn = io.BytesIO()
    with plot_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # texts stay texts, in a font of the reader
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(drawn.getvalue())
    values = [(key, value) for element in root.iter() for key, value in element.items()]
    referred = {value[1:] for key, value in values if key.endswith("href") and value.startswith("#")}
    referred |= {found for _, value in values for found in _REFERENCE.findall(value)}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key, value in list(element.items()):
            del element.attrib[key]
            plain = key.rpartition("}")[2]
            if plain == "href":
                element.set(plain, f"#{name}-{value[1:]}" if value.startswith("#") else value)
            elif plain != "id":
                element.set(plain, _short(plain, value, name))
            elif value in referred:
                element.set(plain, f"{name}-{value}")
    for unused in (*root.findall("metadata"), *root.findall("defs[style]")):  # a style would be that of the whole page
        root.remove(unused)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("style", _JOINS)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _short(key: str, value: str, name: str) -> str:
    """An attribute with rounded places, and with references to the figure's own identifiers."""
    if key in _ROUNDED:
        return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
    return _REFERENCE.sub(lambda found: f"url(#{name}-{found[1]})", value)
