"""Settings as they are given, who gives them, and what is wrong with their values."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import ValidationError

from fundus_seg.config.section import TOGETHER
from fundus_seg.config.settings import Recipe
from fundus_seg.errors import ConfigError, FundusSegError, UsageError, listing

NO_HOLDOUT = "no holdout: name the unseen domain with --holdout A (or B, C, D); --holdout none trains on every domain"

Giver = Literal["preset", "record", "file", "option", "set"]
"""In the order in which they are laid over one another."""

_Settings = TypeVar("_Settings", bound=Recipe)
_MESSAGES = {"tuple_type": "must be a list, as [1, 2]", "bool_type": "must be true or false"}
"""Of pydantic's kinds of errors, in the words of YAML."""
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
                return f"file {place_text(self.place, self.line)}"
            case "record":
                return "the run's record"
        return "--set" if self.by == "set" else "option"


Layer = dict[str, Given]
"""What is given, by dotted setting."""


class Fault(NamedTuple):
    """Something wrong with a setting; `given` is the value that is wrong, if there is one."""

    kind: str
    setting: str
    message: str
    given: Given | None

    def __str__(self) -> str:
        match self.given:
            case Given(by="file" | "record", place=place, line=line):
                return f"config {place_text(place, line)}: {self.message}"
            case Given(by="preset", place=place):
                return f"preset {place}: {self.message}"
        return self.message


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
        raise listed(faults, ConfigError if by_files else UsageError) from error


def invalid(layer: Layer, model: type[Recipe]) -> list[Fault]:
    """What is wrong with each value by itself, whatever else may be given."""
    try:
        model.model_validate(_tree(layer))
    except ValidationError as error:
        return [fault for fault in _faults(error, layer) if fault.kind not in ("missing", TOGETHER)]
    return []


def _faults(error: ValidationError, layer: Layer) -> list[Fault]:
    """A fault for each problem that pydantic has found."""
    faults = []
    for problem in error.errors():
        path, kind = [str(part) for part in problem["loc"]], problem["type"]
        key = ".".join(path)
        message = _MESSAGES.get(kind) or problem["msg"].removeprefix("Value error, ")
        if kind == TOGETHER:
            given = [layer[name] for name in problem["ctx"]["settings"] if name in layer]
            last = max(given, key=lambda each: get_args(Giver).index(each.by), default=None)
            faults.append(Fault(kind, key, message, last))
            continue
        starts = (".".join(path[:end]) for end in range(1, len(path) + 1))
        start = next((start for start in starts if start in layer), None)
        if start is None:  # nobody gives it
            text = NO_HOLDOUT if key == "holdout" else f"{key}: missing"
            faults.append(Fault("missing", key, text, None))
            continue
        text = f"{key}: {message[:1].lower()}{message[1:]}"
        if kind != "value_error":  # our own messages name the value
            text += f" (given: {_SHOWN.repr(layer[start].value if kind == 'missing' else problem['input'])})"
        faults.append(Fault("value", key, text, layer[start]))
    return faults


def listed(faults: Sequence[Fault], error: type[FundusSegError]) -> FundusSegError:
    """An error that tells every fault, each once."""
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


def place_text(path: str | Path, line: int | None) -> str:
    """`my.yaml:7`, or the file alone where no line is known."""
    return f"{path}:{line}" if line else str(path)
