"""Elements of HTML for the page. What they say is text: a browser never takes it for markup."""

from __future__ import annotations

from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement


def tag(name: str, classes: str = "", props: str = "") -> Element:
    """An element, which takes what is made within it."""
    return Element(name).classes(classes).props(props)


def text(name: str, said: str, classes: str = "", props: str = "") -> TextElement:
    """An element that says a text."""
    made = TextElement(tag=name, text=said)
    made.classes(classes).props(props)
    return made
