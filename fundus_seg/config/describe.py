"""Every setting with its value, where the value comes from, what it may be, and its help."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fundus_seg.config.fields import flatten, section_model, setting_fields
from fundus_seg.config.layer import Layer, validated
from fundus_seg.config.presets import preset_names
from fundus_seg.config.read import read_layers
from fundus_seg.config.settings import Recipe, RunConfig

_BOUNDS = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "exclusiveMaximum": "< {}", "maximum": "<= {}"}


@dataclass(frozen=True)
class Setting:
    """One setting of a preset, a file or a run.

    Attributes:
        setting: its dotted name.
        value: as JSON has it: a number, a text, true, false, null or a list; null for a holdout that is not given.
        source: who gives the value: `default`, `preset NAME`, `file FILE:LINE`, `--set`, `the run's record`.
        allowed: what the value may be.
        help: what the setting is.
    """

    setting: str
    value: Any
    source: str
    allowed: str
    help: str


@dataclass(frozen=True)
class Difference:
    """One setting whose values differ between two presets, files or runs.

    Attributes:
        setting: its dotted name.
        value: the first one's value.
        other: the second one's value.
        source: who gives the first value.
        other_source: who gives the second value.
        help: what the setting is.
    """

    setting: str
    value: Any
    other: Any
    source: str
    other_source: str
    help: str


def describe(name_or_path: str = "paper", *, overrides: Sequence[str] = ()) -> list[Setting]:
    """Every setting of a preset, of a YAML file of settings, or of a run's folder.

    Args:
        name_or_path: the preset's name, or the path.
        overrides: `section.key=value`, laid over it.

    Raises:
        ConfigError, UsageError: as `load_config`; that no holdout is given is no error here.
    """
    layer = read_layers(RunConfig, name_or_path, overrides)
    fields = dict(setting_fields(RunConfig))
    values = _values(layer)
    allowed = _allowed()
    return [
        Setting(
            setting=name,
            value=values.get(name),
            source=str(layer[name]) if name in layer else "not given" if field.is_required() else "default",
            allowed=allowed[name],
            help=" ".join((field.description or "").split()),
        )
        for name, field in fields.items()
    ]


def compare(settings: Iterable[Setting], others: Iterable[Setting]) -> list[Difference]:
    """The settings whose values differ, in their order."""
    other_of = {other.setting: other for other in others}
    return [
        Difference(own.setting, own.value, other.value, own.source, other.source, own.help)
        for own in settings
        if own.value != (other := other_of[own.setting]).value
    ]


def as_yaml(value: Any) -> str:
    """A value as it is written in a file of settings, or after `--set`."""
    return value if isinstance(value, str) else json.dumps(value)


def markdown_table(rows: Sequence[Setting] | Sequence[Difference]) -> str:
    """A table with a column for each field."""
    names = [field.name for field in dataclasses.fields(rows[0])]
    lines = [names, ["---"] * len(names)]
    for row in rows:
        texts = {name: as_yaml(getattr(row, name)).replace("|", r"\|") for name in names}
        code = {name: f"`{texts[name]}`" for name in ("setting", "value", "other") if name in texts}
        lines.append([*(texts | code).values()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_page(settings: Sequence[Setting]) -> str:
    """The settings as a page: a table for each section, below the docstring of its model."""
    parts = [f"# Settings of preset {settings[0].value}", _INTRODUCTION]
    for section, model in [("", RunConfig), *_sections()]:
        own = [each for each in settings if each.setting.rpartition(".")[0] == section]
        summary = inspect.cleandoc(model.__doc__ or "").splitlines()[0]
        parts += [f"## {section}: {summary}" if section else "## The run", markdown_table(own)]
    return "\n\n".join(parts)


_INTRODUCTION = """\
Made by `make docs` from the help of each setting beside its definition.
A file of settings holds what differs from the preset that it names, and `fundus-seg train --config my.yaml` reads it:

    preset: tiny
    optim: {lr: 3e-4}

`--set optim.lr=3e-4` changes one setting. `fundus-seg config my.yaml` shows every setting and who gives its value, and
`fundus-seg config my.yaml --diff paper` what differs from another preset, file or run."""


def _sections() -> list[tuple[str, type[BaseModel]]]:
    fields = RunConfig.model_fields.items()
    return [(name, section) for name, field in fields if (section := section_model(field))]


def _values(layer: Layer) -> dict[str, Any]:
    """The values of a layer, validated; without a holdout those of its recipe, and the seed."""
    if "holdout" in layer:
        return flatten(validated(layer, RunConfig).model_dump(mode="json"))
    names = dict(setting_fields(Recipe))
    recipe = validated({name: given for name, given in layer.items() if name in names}, Recipe)
    seed = layer["seed"].value if "seed" in layer else RunConfig.model_fields["seed"].default
    return {"seed": seed, **flatten(recipe.model_dump(mode="json"))}


def _allowed() -> dict[str, str]:
    """What each setting may be, in words."""
    models: dict[str, type[BaseModel]] = {"": RunConfig, **dict(_sections())}
    properties = {section: model.model_json_schema()["properties"] for section, model in models.items()}
    names = [name.rpartition(".") for name, _ in setting_fields(RunConfig)]
    words = {f"{section}{dot}{name}": _in_words(properties[section][name]) for section, dot, name in names}
    return {**words, "preset": ", ".join(preset_names())}


def _in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: `integer > 0, or null`."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return ", or ".join(map(_in_words, schema["anyOf"]))
    if "prefixItems" in schema:
        return f"[{', '.join(map(_in_words, schema['prefixItems']))}]"
    if schema["type"] == "array":
        return f"list of {_in_words(schema['items'])}s"
    words = {"boolean": "true, false", "string": "text"}.get(schema["type"], schema["type"])
    bounds = [text.format(schema[bound]) for bound, text in _BOUNDS.items() if bound in schema]
    if "multipleOf" in schema:
        bounds.append(f"a multiple of {schema['multipleOf']}")
    return " ".join([words, " and ".join(bounds)]).strip()
