"""Settings of runs, recipes and scoring protocols, from presets, YAML files, `--set` and options, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fundus_seg import yaml_lines
from fundus_seg.config.layer import validated
from fundus_seg.config.read import read_file, read_layers, settings_file, top_node, yaml_of
from fundus_seg.config.settings import Recipe, RunConfig
from fundus_seg.protocol import Scoring

_Settings = TypeVar("_Settings", bound=Recipe)


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
    return validated(read_file(path, model), model, place=str(path))


def recorded_provenance(name_or_path: str) -> dict[str, Any]:
    """The provenance in a run's own config.yaml; empty for a preset or any other file."""
    path = settings_file(name_or_path)
    node = top_node(path) if path and path.is_file() else None
    if not path or not node:
        return {}
    with yaml_of(path):
        recorded = [yaml_lines.value(value) for key, value in node.value if key.value == "provenance"]
    return recorded[0] if recorded and isinstance(recorded[0], dict) else {}
