"""Presets, YAML files, `--set` and options, each read into a layer of settings.

Everything that is wrong with a file is told at once, a line each with the file's line; so is everything that is wrong
with the arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from fundus_seg import yaml_lines
from fundus_seg.config.fields import before_they_existed, section_model, setting_fields
from fundus_seg.config.layer import Fault, Given, Giver, Layer, invalid, listed, place_text
from fundus_seg.config.presets import preset_names, preset_text
from fundus_seg.config.settings import Recipe, RunConfig
from fundus_seg.errors import ConfigError, UsageError, unknown_name
from fundus_seg.yaml_lines import YamlError

RUN_FILE_KEYS = ("format", "identity", "inputs", "provenance")
"""What a run's config.yaml holds beside its settings."""
RETIRED = {"data.mask_interpolation": "nearest"}
"""Settings of older versions that had no other value; files that hold them are still read."""
OPTIONS = {"holdout": "--holdout", "model.op": "--op", "model.start": "--from", "seed": "--seed"}
"""Settings that the command line has options of their own for."""


def settings_file(name_or_path: str) -> Path | None:
    """The file that holds the settings, of a run's folder its config.yaml; None for the name of a preset."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    if name_or_path not in preset_names() and (path / "config.yaml").is_file():
        return path / "config.yaml"
    return None


def read_layers(
    model: type[Recipe], name_or_path: str, overrides: Sequence[str] = (), arguments: Mapping[str, Any] | None = None
) -> Layer:
    """Every setting of the model that is given, by whoever gives it last; the others have their defaults.

    Raises:
        ConfigError: faults in the file.
        UsageError: faults in the arguments.
    """
    path = settings_file(name_or_path)
    base = _read_preset(name_or_path) if path is None else read_file(path, RunConfig)
    names = dict(setting_fields(model))
    return {key: given for key, given in base.items() if key in names} | _read_arguments(
        model, overrides, arguments or {}
    )


def _read_preset(name: str) -> Layer:
    if name not in preset_names():
        raise UsageError(unknown_name("preset", name, preset_names()) + "; or give the path of a YAML file")
    node = yaml_lines.compose(preset_text(name))
    faults: list[Fault] = []
    given = _read_section(node, RunConfig, "preset", name, faults) if isinstance(node, yaml.MappingNode) else {}
    return given | {"preset": Given(name, "preset", name)}


def read_file(path: Path, model: type[Recipe]) -> Layer:
    """The settings in a file, over those of the preset that it names."""
    node = top_node(path)
    if node is None:
        return _read_preset("paper")
    faults: list[Fault] = []
    keys = [key.value for key, _ in node.value]
    by: Giver = "record" if "inputs" in keys and "provenance" in keys else "file"
    with yaml_of(path):
        own = _read_section(node, model, by, str(path), faults)
    preset = own.setdefault("preset", Given("paper", by, str(path)))
    if isinstance(preset.value, str) and preset.value not in preset_names():
        faults.append(Fault("preset", "preset", unknown_name("preset", preset.value, preset_names()), preset))
    faults += invalid(own, model)
    if faults:
        raise listed(sorted(faults, key=lambda fault: fault.given.line if fault.given else 0), ConfigError)
    older = {key: Given(value, by, str(path)) for key, value in before_they_existed(model).items()}
    return _read_preset(preset.value) | (older if by == "record" else {}) | own


def top_node(path: Path) -> yaml.MappingNode | None:
    """The top node of a file of settings; None if the file is empty."""
    try:
        text = path.read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8: save it as UTF-8"
        raise ConfigError(f"config {path}: {reason}; presets are: {', '.join(preset_names())}") from error
    with yaml_of(path):
        node = yaml_lines.compose(text)
    if not isinstance(node, yaml.MappingNode | None):
        raise ConfigError(f"config {path}: holds no settings: write section: {{key: value}}")
    return node


@contextlib.contextmanager
def yaml_of(path: Path) -> Iterator[None]:
    """Within it, a YamlError becomes a ConfigError that names the file and the line."""
    try:
        yield
    except YamlError as error:
        raise ConfigError(f"config {place_text(path, error.line)}: not valid YAML: {error}") from error


def _read_section(
    node: yaml.MappingNode,
    model: type[BaseModel],
    by: Giver,
    place: str,
    faults: list[Fault],
    prefix: str = "",
) -> Layer:
    """The settings below one node; what is wrong with keys, or is no value, is added to `faults`."""
    layer: Layer = {}
    for entry in yaml_lines.entries(node):
        key = f"{prefix}{entry.key}"
        nothing = Given(None, by, place, entry.line)
        field = model.model_fields.get(entry.key)
        section = section_model(field) if field else None
        if key in RUN_FILE_KEYS:
            continue
        if entry.repeated:
            faults.append(Fault("repeated", key, f"{key}: stands here a second time; keep one", nothing))
        elif field is None and key not in RETIRED:
            faults.append(Fault("unknown", key, _unknown(key, model, prefix), nothing))
        elif section and isinstance(entry.node, yaml.MappingNode):
            layer |= _read_section(entry.node, section, by, place, faults, f"{key}.")
        elif section:
            faults.append(Fault("section", key, _is_section(key, section), nothing))
        else:
            try:
                given = replace(nothing, value=yaml_lines.value(entry.node))
            except YamlError as error:
                faults.append(Fault("yaml", key, f"{key}: not valid YAML: {error}", nothing))
                continue
            if key not in RETIRED:
                layer[key] = given
            elif given.value != RETIRED[key]:
                faults.append(Fault("retired", key, f"{key}: is always {RETIRED[key]}; leave it out", given))
    return layer


def _read_arguments(model: type[Recipe], overrides: Sequence[str], arguments: Mapping[str, Any]) -> Layer:
    """What `--set` and options give, the options first."""
    faults: list[Fault] = []
    layer = {key: Given(value, "option") for key, value in arguments.items() if value is not None}
    for override in overrides:
        key, equals, text = (part.strip() for part in override.partition("="))
        given = Given(None, "set")
        if not equals:
            faults.append(Fault("form", key, f"{override}: write it as section.key=value", given))
        elif key == "preset":
            faults.append(Fault("preset", key, f"{override}: choose a preset with --config", given))
        elif problem := _wrong_key(key, model):
            faults.append(Fault("unknown", key, problem, given))
        else:
            try:
                given = replace(given, value=yaml_lines.read(text))
            except YamlError as error:
                faults.append(Fault("yaml", key, f"{override}: not valid YAML: {error}", given))
                continue
            before = layer.get(key)
            if before and before.by == "option" and before.value != given.value:
                option = f"{OPTIONS.get(key, key)} {before.value}"
                faults.append(Fault("conflict", key, f"{override} with {option}: give it once", given))
            layer[key] = given
    faults += invalid(layer, model)
    if faults:
        raise listed(faults, UsageError)
    return layer


def _wrong_key(key: str, model: type[BaseModel]) -> str | None:
    """What is wrong with a dotted setting, if anything is."""
    section: type[BaseModel] | None = model
    prefix = ""
    for name in key.split("."):
        field = section.model_fields.get(name) if section else None
        if field is None:
            return _unknown(f"{prefix}{name}", section or model, prefix if section else "")
        prefix, section = f"{prefix}{name}.", section_model(field)
    return _is_section(key, section) if section else None


def _unknown(key: str, section: type[BaseModel], prefix: str) -> str:
    """`unknown setting 'optim.lrr': did you mean 'optim.lr'? ...`, and where there is one of its name."""
    names = [f"{prefix}{name}" for name in section.model_fields]
    elsewhere = [name for name, _ in setting_fields(RunConfig) if name.endswith(f".{key.rpartition('.')[2]}")]
    return unknown_name("setting", key, names) + (f"; there is {elsewhere[0]}" if elsewhere else "")


def _is_section(key: str, section: type[BaseModel]) -> str:
    return f"{key} is a section: write {key}.{next(iter(section.model_fields))}"
