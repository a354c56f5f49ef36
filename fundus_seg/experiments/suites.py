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

from pydantic import BaseModel, ConfigDict, ValidationError

from fundus_seg import yaml_lines
from fundus_seg.config import load_recipe
from fundus_seg.config.describe import as_yaml
from fundus_seg.config.layer import place_text
from fundus_seg.errors import ConfigError, UsageError, unknown_name
from fundus_seg.runs.identity import check_free
from fundus_seg.yaml_lines import YamlError

_SUFFIXES = {".yaml", ".yml"}


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


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reference: str | None = None
    columns: dict[str, dict[str, Any]]


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
        content = _File.model_validate(yaml_lines.read(text) or {})
    except YamlError as error:
        raise ConfigError(f"suite {place_text(place, error.line)}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"suite {place}: {where}: {first['msg']}; write columns: {{NAME: {{model.op: OPERATOR, SETTING: VALUE}}}}"
        ) from error
    setups = []
    for label, settings in content.columns.items():
        try:
            setups.append(_setup(label, settings))
        except UsageError as error:
            raise ConfigError(f"suite {place}: column {label}: {error}") from error
    if not setups:
        raise ConfigError(f"suite {place}: it has no columns; write columns: {{NAME: {{model.op: OPERATOR}}}}")
    if content.reference is not None and content.reference not in content.columns:
        raise ConfigError(f"suite {place}: reference: {unknown_name('column', content.reference, content.columns)}")
    return Suite(name_or_path, tuple(setups), content.reference)


def _setup(label: str, settings: dict[str, Any]) -> Setup:
    check_free(label, "give the column another name")
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
