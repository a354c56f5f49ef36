"""What the columns of an experiment are: those of `--ops`, or those of a suite, a YAML file of names and settings.

    reference: depthwise                            # the column that the others are compared with; may be left out
    columns:
      depthwise: {model.op: depthwise}
      no affines: {model.op: tvconv, model.ablation: no-affines}

The suites of the package lie in `configs/suites/`.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_seg import yaml_lines
from fundus_seg.config import load_recipe
from fundus_seg.config.describe import as_yaml
from fundus_seg.config.layer import place_text
from fundus_seg.errors import ConfigError, UsageError, one_line, printable, unknown_name
from fundus_seg.runs.identity import check_free
from fundus_seg.yaml_lines import YamlError

_SUFFIXES = {".yaml", ".yml"}
_KEYS = ("reference", "columns")
_FORM = "columns: {NAME: {model.op: OPERATOR, SETTING: VALUE}}"


@dataclass(frozen=True)
class Setup:
    """A column of an experiment before its runs are planned.

    Attributes:
        op: its operator.
        label: what tables and lines call it; None for the name of its operator.
        settings: what else its runs differ in from those of other columns, each written `section.key=value`.
    """

    op: str
    label: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """The columns of a ready experiment.

    Attributes:
        name: the name or the path by which it was read.
        setups: its columns, in the order in which they are worked on.
        reference: label of the column that the others are compared with; None where there is none.
    """

    name: str
    setups: tuple[Setup, ...]
    reference: str | None = None


def setups_of(ops: Iterable[str]) -> tuple[Setup, ...]:
    """A column for each operator."""
    return tuple(map(Setup, ops))


def suite_names() -> list[str]:
    """Names of the suites that ship with the package."""
    names = (Path(entry.name) for entry in _shipped().iterdir())
    return sorted(name.stem for name in names if name.suffix in _SUFFIXES)


def read_suite(name_or_path: str) -> Suite:
    """A suite of the package by its name, or one of your own by the path of its YAML file.

    Raises:
        UsageError: no suite has that name.
        ConfigError: the file cannot be read, is not valid, or gives a column settings that are unknown or wrong.
    """
    text, place = _text_of(name_or_path)
    try:
        content = yaml_lines.read(text)
        columns, reference = _parts(content)
    except YamlError as error:
        raise ConfigError(f"suite {place_text(place, error.line)}: not valid YAML: {error}") from error
    except UsageError as error:
        raise ConfigError(f"suite {place}: {error}") from error
    setups = []
    for label, settings in columns.items():
        try:
            setups.append(_setup(label, settings))
        except UsageError as error:
            raise ConfigError(f"suite {place}: column {printable(label)}: {error}") from error
    return Suite(name_or_path, tuple(setups), reference)


def _parts(content: Any) -> tuple[dict[Any, Any], str | None]:
    """The columns of a file, as they stand there, and the reference."""
    if not isinstance(content, dict) or not content:
        raise UsageError(f"it holds no suite; write {_FORM}")
    for key in content:
        if key not in _KEYS:
            raise UsageError(unknown_name("key", str(key), _KEYS))
    columns, reference = content.get("columns"), content.get("reference")
    if not isinstance(columns, dict) or not columns:
        raise UsageError(f"it has no columns; write {_FORM}")
    if reference is not None and reference not in [*columns]:
        raise UsageError(f"reference: {unknown_name('column', str(reference), map(str, columns))}")
    return columns, reference


def _setup(label: Any, settings: Any) -> Setup:
    if not isinstance(label, str):
        raise UsageError("its name is no text; write it in quotes")
    if not label or printable(one_line(label)) != label:
        raise UsageError(f"'{printable(label)}' is no name of one line without blanks around it; take another")
    check_free(label, "give the column another name")
    if not isinstance(settings, dict):
        raise UsageError("it holds no settings; write NAME: {model.op: OPERATOR, SETTING: VALUE}")
    if scoring := [key for key in settings if str(key).startswith("scoring.")]:
        raise UsageError(
            f"{scoring[0]}: a table never mixes scoring protocols; leave it out, then `fundus-seg evaluate --scoring`"
        )
    given = [f"{key}={as_yaml(value)}" for key, value in settings.items()]
    recipe = load_recipe(overrides=given)
    if "model.op" not in settings:
        raise UsageError("it names no operator; add model.op")
    return Setup(recipe.model.op, label, tuple(text for text in given if not text.startswith("model.op=")))


def _text_of(name_or_path: str) -> tuple[str, str]:
    """The YAML of a suite, and what errors call the file."""
    path = Path(name_or_path)
    if path.suffix not in _SUFFIXES:
        if name_or_path not in suite_names():
            raise UsageError(unknown_name("suite", name_or_path, suite_names()) + "; or give the path of a YAML file")
        return (_shipped() / f"{name_or_path}.yaml").read_text("utf8"), name_or_path
    try:
        return path.read_text("utf8"), name_or_path
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8: save it as UTF-8"
        raise ConfigError(f"suite {path}: {reason}; suites of the package are: {', '.join(suite_names())}") from error


def _shipped() -> Any:
    return importlib.resources.files("fundus_seg.configs") / "suites"
