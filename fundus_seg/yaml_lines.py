"""YAML read node by node, so that a complaint about a value can name the line that the value stands in.

Stricter than YAML itself: whoever walks the nodes sees a key that stands twice in one mapping. Looser in one point:
`1e-3` is a number, as everybody who writes a learning rate means it; YAML 1.1 reads it as a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from fundus_seg.errors import one_line


class YamlError(Exception):
    """A text that is not valid YAML.

    Attributes:
        line: the line of the fault, counted from 1; None where it is not known.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class Entry(NamedTuple):
    """A key of a mapping with its value's node; `repeated` if the same key stands above it in the same mapping."""

    key: str
    line: int
    node: yaml.Node
    repeated: bool


class _Loader(yaml.SafeLoader):
    """The safe loader, to which 1e-3 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def compose(text: str) -> yaml.Node | None:
    """The top node of a YAML document; None if the document is empty.

    Raises:
        YamlError: the text is not valid YAML.
    """
    try:
        return yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise _with_line(error) from error


def entries(node: yaml.MappingNode) -> Iterator[Entry]:
    """The entries of a mapping in their order, those that `<<` merges into it first.

    Raises:
        YamlError: a `<<` merges something that is no mapping.
    """
    own = {id(value) for _, value in node.value}
    merged = yaml.MappingNode(node.tag, [*node.value], node.start_mark, node.end_mark)
    try:
        _Loader("").flatten_mapping(merged)
    except (yaml.YAMLError, RecursionError) as error:
        raise _with_line(error, node) from error
    seen: set[str] = set()
    for key_node, value_node in merged.value:
        key = one_line(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "[...]"
        yield Entry(key, key_node.start_mark.line + 1, value_node, repeated=key in seen)
        if id(value_node) in own:  # an own key may replace a merged one
            seen.add(key)


def value(node: yaml.Node) -> Any:
    """The value of a node, as the safe loader makes it.

    Raises:
        YamlError: the node names no value, as an impossible date does.
    """
    try:
        return _Loader("").construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise _with_line(error, node) from error


def read(text: str) -> Any:
    """The value of a whole document; None if it is empty.

    Raises:
        YamlError: the text is not valid YAML.
    """
    node = compose(text)
    return None if node is None else value(node)


def _with_line(error: Exception, node: yaml.Node | None = None) -> YamlError:
    """The error in one line, with its own line or else that of the node."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None) or (node and node.start_mark)
    return YamlError(one_line(getattr(error, "problem", None) or error), mark.line + 1 if mark else None)
