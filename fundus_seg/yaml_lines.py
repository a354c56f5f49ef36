"""The one reader of YAML: settings, domain files, `--set` values and what runs record, node by node, with line numbers.

Scalars have the meaning of YAML 1.2's core schema: `010` is 10, `0o10` is 8, `1e-3` is a number, and `no`, `on`,
`1:00`, `1_0` and dates are texts. (PyYAML alone follows YAML 1.1, in which `010` is 8, `1e-3` a text and `no` is
false.) A key that stands twice in one mapping is refused or told. Files and keys have a size that no sound file
reaches, so that the others are refused at once. What `write` writes, `read` reads back as it was, and so does any
reader of YAML 1.1.
"""

from __future__ import annotations

import contextlib
import functools
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


MOST_CHARACTERS, LONGEST_KEY = 1_000_000, 200
"""Longer documents and keys are refused."""


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2's core schema."""


class _CompiledLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same on libyaml, ten times as fast: a grid reads a document for each of its runs when it starts again."""


_UNUSUAL = re.compile(r"[\[{&*!|>%\t\ufeff]|^ {40}|([-?:] +){3}", re.MULTILINE)
"""What libyaml reads otherwise than PyYAML, or must not see: it ends the process where a document is nested deep."""

_Loader.yaml_implicit_resolvers = _CompiledLoader.yaml_implicit_resolvers = {}
for _tag, _expression, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_expression})$"), _first)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    bases = {"0o": 8, "0x": 16}
    return int(text[2:], bases[text[:2]]) if text[:2] in bases else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


@functools.lru_cache(maxsize=64)  # a grid of many runs reads the same presets and overrides for each of them
def compose(text: str) -> yaml.Node | None:
    """The top node of a YAML document, which nobody may change; None if the document is empty.

    Raises:
        YamlError: the text is not valid YAML, or longer than `MOST_CHARACTERS`.
    """
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f"{len(text)} characters, more than {MOST_CHARACTERS}")
    if not _UNUSUAL.search(text):
        with contextlib.suppress(yaml.YAMLError):  # which the other loader words better
            return yaml.compose(text, Loader=_CompiledLoader)
    try:
        return yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise _with_line(error) from error


def entries(node: yaml.MappingNode) -> Iterator[Entry]:
    """The entries of a mapping in their order, those that `<<` merges into it first.

    Raises:
        YamlError: a `<<` merges something that is no mapping, or a key is longer than `LONGEST_KEY`.
    """
    own = {id(value) for _, value in node.value}
    merged = yaml.MappingNode(node.tag, [*node.value], node.start_mark, node.end_mark)
    try:
        _Loader("").flatten_mapping(merged)
    except (yaml.YAMLError, RecursionError) as error:
        raise _with_line(error, node) from error
    seen: set[str] = set()
    for key_node, value_node in merged.value:
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "[...]"
        key = one_line(name)
        if len(key) > LONGEST_KEY:
            raise YamlError(f"a key of {len(key)} characters", key_node.start_mark.line + 1)
        yield Entry(key, key_node.start_mark.line + 1, value_node, repeated=name in seen)
        if id(value_node) in own:  # an own key may replace a merged one
            seen.add(name)


def value(node: yaml.Node) -> Any:
    """The value of a node, as the safe loader makes it.

    Raises:
        YamlError: the node names no value, or a key stands twice in a mapping.
    """
    _refuse_repeated(node)
    try:
        return _Loader("").construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise _with_line(error, node) from error


def as_written(node: yaml.Node | None, section: str) -> dict[str, str]:
    """The keys and values of a section of the top node, as the characters that stand there; empty if it lacks it."""
    top = node.value if isinstance(node, yaml.MappingNode) else []
    found = [value for key, value in top if key.value == section and isinstance(value, yaml.MappingNode)]
    return {str(key.value): str(each.value) for mapping in found for key, each in mapping.value}


def read(text: str) -> Any:
    """The value of a whole document; None if it is empty.

    Raises:
        YamlError: the text is not valid YAML.
    """
    node = compose(text)
    return None if node is None else value(node)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes every text that is no text in YAML 1.1 or in YAML 1.2."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, []), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])]
    for first in {*_Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if len(text.splitlines()) > 1 or text != text.strip() else None  # PyYAML folds some line ends away
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def write(content: Any) -> str:
    """A document of mappings, lists, texts, numbers, booleans and None, mappings in their own order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _refuse_repeated(node: yaml.Node) -> None:
    """Refuse a mapping, at any depth, in which a key stands twice; of two values, YAML would drop one."""
    seen, waiting = set[int](), [node]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:  # an alias
            continue
        seen.add(id(each))
        if isinstance(each, yaml.SequenceNode):
            waiting += each.value
        elif isinstance(each, yaml.MappingNode):
            for entry in entries(each):
                if entry.repeated:
                    raise YamlError(f"the key '{entry.key}' stands twice", entry.line)
                waiting.append(entry.node)


def _with_line(error: Exception, node: yaml.Node | None = None) -> YamlError:
    """The error in one line, with its own line or else that of the node."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None) or (node and node.start_mark)
    return YamlError(one_line(getattr(error, "problem", None) or error), mark.line + 1 if mark else None)
