"""The settings of a model, section by section: their dotted names, and the values that runs had before one existed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fundus_seg.plugins import is_plugin
from fundus_seg.protocol import BeforeItExisted


@dataclass(frozen=True)
class EffectWith:
    """Stands in the annotation of a setting that does something beside some values of another setting alone.

    A plugin as the other's value may use the setting too. Where the setting does nothing it names no run: two runs that
    differ in it are one.

    Attributes:
        setting: the other setting, dotted.
        values: its values beside which there is an effect.
    """

    setting: str
    values: tuple[str, ...]


def setting_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Each setting of a model by its dotted name, those that stand in no section first."""
    fields = model.model_fields.items()
    yield from ((f"{prefix}{name}", field) for name, field in fields if section_model(field) is None)
    for name, field in fields:
        if section := section_model(field):
            yield from setting_fields(section, f"{prefix}{name}.")


def section_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a section; None for a single setting."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def before_they_existed(model: type[BaseModel]) -> dict[str, Any]:
    """The values that all runs had before some settings of the model existed, by dotted setting."""
    values: dict[str, Any] = {}
    for parent in reversed(model.__mro__):  # a subclass that narrows a setting's type keeps what its parent says
        for name, field in getattr(parent, "model_fields", {}).items():
            for said in field.metadata:
                if isinstance(said, BeforeItExisted):
                    values[name] = said.value
            if section := section_model(field):
                values |= {f"{name}.{key}": value for key, value in before_they_existed(section).items()}
    return values


def without_effect(model: type[BaseModel], values: Mapping[str, Any]) -> set[str]:
    """The settings of a model that do nothing beside these values, which are those of all settings, dotted."""
    return {
        name
        for name, field in setting_fields(model)
        for said in field.metadata
        if isinstance(said, EffectWith)
        and values[said.setting] not in said.values
        and not is_plugin(values[said.setting])
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
