"""Settings from presets, YAML files, `--set` and options, laid over one another in that order.

Everything that is wrong with a file is told at once, a line each with the file's line; so is everything that is wrong
with the arguments.
"""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from fundus_seg import yaml_lines
from fundus_seg.config.presets import preset_names, preset_text
from fundus_seg.config.settings import (
    TOGETHER,
    Recipe,
    RunConfig,
    before_they_existed,
    section_model,
    setting_fields,
)
from fundus_seg.errors import ConfigError, FundusSegError, UsageError, listing, unknown_name
from fundus_seg.protocol import Scoring
from fundus_seg.yaml_lines import YamlError

RUN_FILE_KEYS = ("format", "inputs", "provenance")
"""What a run's config.yaml holds beside its settings."""
RETIRED = {"data.mask_interpolation": "nearest"}
"""Settings of older versions that had no other value; files that hold them are still read."""
OPTIONS = {"holdout": "--holdout", "model.op": "--op", "seed": "--seed"}
"""Settings that the command line has options of their own for."""

NO_HOLDOUT = "no holdout: name the unseen domain with --holdout A (or B, C, D)"

Giver = Literal["preset", "record", "file", "option", "set"]
"""In the order in which they are laid over one another."""

_Settings = TypeVar("_Settings", bound=Recipe)
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 100


@dataclass(frozen=True)
class Given:
    """A value of one setting, and who gives it.

    Attributes:
        value: as YAML or the caller has it, not yet validated.
        by: a shipped preset, a file of settings, a run's record, `--set`, or an option of its own.
        place: the preset's name, or the file.
        line: the line in the file, counted from 1; 0 for what no line says.
    """

    value: Any
    by: Giver
    place: str = ""
    line: int = 0

    def __str__(self) -> str:
        """`preset tiny`, `file my.yaml:7`, `--set`."""
        match self.by:
            case "preset":
                return f"preset {self.place}"
            case "file":
                return f"file {_place(self.place, self.line)}"
            case "record":
                return "the run's record"
        return "--set" if self.by == "set" else "option"


Layer = dict[str, Given]
"""What is given, by dotted setting."""


class _Fault(NamedTuple):
    """Something wrong with a setting; `given` is the value that is wrong, if there is one."""

    kind: str
    setting: str
    message: str
    given: Given | None

    def __str__(self) -> str:
        match self.given:
            case Given(by="file" | "record", place=place, line=line):
                return f"config {_place(place, line)}: {self.message}"
            case Given(by="preset", place=place):
                return f"preset {place}: {self.message}"
            case Given(by="set"):
                return f"--set: {self.message}"
        return self.message


def load_config(
    name_or_path: str = "paper", *, overrides: Sequence[str] = (), arguments: Mapping[str, Any] | None = None
) -> RunConfig:
    """Settings of a run.

    Args:
        name_or_path: a preset's name, or a YAML file that holds what differs from the preset it names under `preset`
            (default `paper`); a run's folder or its config.yaml repeats that run.
        overrides: `section.key=value`, the value read as YAML.
        arguments: dotted settings given as options of their own; None means not given.

    Raises:
        ConfigError: an unreadable file, or unknown keys and invalid values in it, each with its line.
        UsageError: an unknown preset; wrong overrides or arguments, all of them listed; a setting that is given both
            as an override and as an argument, with different values; no holdout.
    """
    return validated(read_layers(RunConfig, name_or_path, overrides, arguments or {}), RunConfig)


def load_recipe(
    name_or_path: str = "paper", *, overrides: Sequence[str] = (), arguments: Mapping[str, Any] | None = None
) -> Recipe:
    """Settings of no run in particular: without holdout and seed, which are ignored in a file that has them.

    Arguments and errors are those of `load_config`.
    """
    return validated(read_layers(Recipe, name_or_path, overrides, arguments or {}), Recipe)


def load_scoring(name_or_path: str) -> Scoring:
    """The scoring protocol of a preset, of a YAML file of settings, or of a run.

    Raises:
        ConfigError: an unreadable or wrong file.
        UsageError: an unknown preset.
    """
    return load_recipe(name_or_path).scoring


def load_recorded(path: Path, model: type[_Settings]) -> _Settings:
    """The settings that a run's config.yaml holds, for instance as a `ResolvedRun`.

    Raises:
        ConfigError: it cannot be read, or is not what a run records.
    """
    return validated(_read_file(path, model), model, place=str(path))


def recorded_provenance(name_or_path: str) -> dict[str, Any]:
    """The provenance in a run's own config.yaml; empty for a preset or any other file."""
    path = settings_file(name_or_path)
    node = _top(path) if path and path.is_file() else None
    if not path or not node:
        return {}
    with _yaml_of(path):
        recorded = [yaml_lines.value(value) for key, value in node.value if key.value == "provenance"]
    return recorded[0] if recorded and isinstance(recorded[0], dict) else {}


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
    base = _read_preset(name_or_path) if path is None else _read_file(path, RunConfig)
    names = dict(setting_fields(model))
    return {key: given for key, given in base.items() if key in names} | _read_arguments(
        model, overrides, arguments or {}
    )


def validated(layer: Layer, model: type[_Settings], *, place: str = "") -> _Settings:
    """The settings of a layer, those that it lacks at their defaults.

    Args:
        layer: what is given.
        model: type of the settings.
        place: the file that must hold every setting without a default; empty where the command line may give them.

    Raises:
        ConfigError, UsageError: settings that are missing or invalid, or do not go together; ConfigError where files
            alone are at fault.
    """
    try:
        return model.model_validate(_tree(layer))
    except ValidationError as error:
        nobody = Given(None, "file", place) if place else None
        faults = [fault._replace(given=fault.given or nobody) for fault in _faults(error, layer)]
        by_files = all(fault.given and fault.given.by in ("file", "record") for fault in faults)
        raise _listed(faults, ConfigError if by_files else UsageError) from error


def _read_preset(name: str) -> Layer:
    if name not in preset_names():
        raise UsageError(unknown_name("preset", name, preset_names()) + "; or give the path of a YAML file")
    node = yaml_lines.compose(preset_text(name))
    faults: list[_Fault] = []
    given = _read_section(node, RunConfig, "preset", name, faults) if isinstance(node, yaml.MappingNode) else {}
    return given | {"preset": Given(name, "preset", name)}


def _read_file(path: Path, model: type[Recipe]) -> Layer:
    """The settings in a file, over those of the preset that it names."""
    node = _top(path)
    if node is None:
        return _read_preset("paper")
    faults: list[_Fault] = []
    keys = [key.value for key, _ in node.value]
    by: Giver = "record" if "inputs" in keys and "provenance" in keys else "file"
    with _yaml_of(path):
        own = _read_section(node, model, by, str(path), faults)
    preset = own.setdefault("preset", Given("paper", by, str(path)))
    if isinstance(preset.value, str) and preset.value not in preset_names():
        faults.append(_Fault("preset", "preset", unknown_name("preset", preset.value, preset_names()), preset))
    faults += _invalid(own, model)
    if faults:
        raise _listed(sorted(faults, key=lambda fault: fault.given.line if fault.given else 0), ConfigError)
    older = {key: Given(value, by, str(path)) for key, value in before_they_existed(model).items()}
    return _read_preset(preset.value) | (older if by == "record" else {}) | own


def _top(path: Path) -> yaml.MappingNode | None:
    """The top node of a file of settings; None if the file is empty."""
    try:
        text = path.read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"config {path}: {reason}; presets are: {', '.join(preset_names())}") from error
    with _yaml_of(path):
        node = yaml_lines.compose(text)
    if not isinstance(node, yaml.MappingNode | None):
        raise ConfigError(f"config {path}: holds no settings: write section: {{key: value}}")
    return node


@contextlib.contextmanager
def _yaml_of(path: Path) -> Iterator[None]:
    """Within it, a YamlError becomes a ConfigError that names the file and the line."""
    try:
        yield
    except YamlError as error:
        raise ConfigError(f"config {_place(path, error.line)}: not valid YAML: {error}") from error


def _place(path: str | Path, line: int | None) -> str:
    return f"{path}:{line}" if line else str(path)


def _read_section(
    node: yaml.MappingNode,
    model: type[BaseModel],
    by: Giver,
    place: str,
    faults: list[_Fault],
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
            faults.append(_Fault("repeated", key, f"{key}: stands here a second time; keep one", nothing))
        elif field is None and key not in RETIRED:
            faults.append(_Fault("unknown", key, _unknown(key, model, prefix), nothing))
        elif section and isinstance(entry.node, yaml.MappingNode):
            layer |= _read_section(entry.node, section, by, place, faults, f"{key}.")
        elif section:
            faults.append(_Fault("section", key, _is_section(key, section), nothing))
        else:
            try:
                given = replace(nothing, value=yaml_lines.value(entry.node))
            except YamlError as error:
                faults.append(_Fault("yaml", key, f"{key}: not valid YAML: {error}", nothing))
                continue
            if key not in RETIRED:
                layer[key] = given
            elif given.value != RETIRED[key]:
                faults.append(_Fault("retired", key, f"{key}: is always {RETIRED[key]}; leave it out", given))
    return layer


def _read_arguments(model: type[Recipe], overrides: Sequence[str], arguments: Mapping[str, Any]) -> Layer:
    """What `--set` and options give, the options first."""
    faults: list[_Fault] = []
    layer = {key: Given(value, "option") for key, value in arguments.items() if value is not None}
    for override in overrides:
        key, equals, text = (part.strip() for part in override.partition("="))
        given = Given(None, "set")
        if not equals:
            faults.append(_Fault("form", key, f"{override}: write it as section.key=value", given))
        elif key == "preset":
            faults.append(_Fault("preset", key, f"{override}: choose a preset with --config", given))
        elif problem := _wrong_key(key, model):
            faults.append(_Fault("unknown", key, problem, given))
        else:
            try:
                given = replace(given, value=yaml_lines.read(text))
            except YamlError as error:
                faults.append(_Fault("yaml", key, f"{override}: not valid YAML: {error}", given))
                continue
            before = layer.get(key)
            if before and before.by == "option" and before.value != given.value:
                option = f"{OPTIONS.get(key, key)} {before.value}"
                faults.append(_Fault("conflict", key, f"{override} with {option}: give it once", given))
            layer[key] = given
    faults += _invalid(layer, model)
    if faults:
        raise _listed(faults, UsageError)
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


def _invalid(layer: Layer, model: type[Recipe]) -> list[_Fault]:
    """What is wrong with each value by itself, whatever else may be given."""
    try:
        model.model_validate(_tree(layer))
    except ValidationError as error:
        return [fault for fault in _faults(error, layer) if fault.kind not in ("missing", TOGETHER)]
    return []


def _faults(error: ValidationError, layer: Layer) -> list[_Fault]:
    """A fault for each problem that pydantic has found."""
    faults = []
    for problem in error.errors():
        path, kind = [str(part) for part in problem["loc"]], problem["type"]
        key = ".".join(path)
        message = problem["msg"].removeprefix("Value error, ")
        if kind == TOGETHER:
            given = [layer[name] for name in problem["ctx"]["settings"] if name in layer]
            last = max(given, key=lambda each: get_args(Giver).index(each.by), default=None)
            faults.append(_Fault(kind, key, message, last))
        elif kind == "missing":
            text = NO_HOLDOUT if key == "holdout" else f"{key}: missing"
            faults.append(_Fault(kind, key, text, None))
        else:
            starts = (".".join(path[:end]) for end in range(1, len(path) + 1))
            text = f"{key}: {message[:1].lower()}{message[1:]}"
            if kind != "value_error":  # our own messages name the value
                text += f" (given: {_SHOWN.repr(problem['input'])})"
            faults.append(_Fault(kind, key, text, next((layer[start] for start in starts if start in layer), None)))
    return faults


def _listed(faults: Sequence[_Fault], error: type[FundusSegError]) -> FundusSegError:
    return error(listing([*dict.fromkeys(map(str, faults))], "faults in the settings"))


def _tree(layer: Layer) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    tree: dict[str, Any] = {}
    for key, given in layer.items():
        *sections, leaf = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = given.value
    return tree
