"""Elements of HTML for the page. Their content is text: a browser never takes it for markup."""

from __future__ import annotations

from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement


def tag(name: str, classes: str = "", props: str = "") -> Element:
    """An element of HTML; what is made in a `with` block of it becomes its child."""
    return Element(name).classes(classes).props(props)


def text(name: str, content: str, classes: str = "", props: str = "") -> TextElement:
    """An element of HTML that holds a text."""
    made = TextElement(tag=name, text=content)
    made.classes(classes).props(props)
    return made
