"""Settings: what they are, how they are read from presets, YAML files and `--set`, how open ones are decided."""

from fundus_seg.config.fields import flatten
from fundus_seg.config.load import load_config, load_recipe, load_recorded, load_scoring, recorded_provenance
from fundus_seg.config.presets import preset_names
from fundus_seg.config.resolve import resolve_machine, resolve_sources
from fundus_seg.config.settings import (
    CHANGE_NOTHING,
    MACHINE_SETTINGS,
    PLUGIN_SETTINGS,
    DataConfig,
    MachineSettings,
    ModelConfig,
    OptimConfig,
    PlannedRun,
    Recipe,
    ResolvedRun,
    ResolvedTrain,
    RunConfig,
    TrainConfig,
)
from fundus_seg.protocol import BeforeItExisted

__all__ = [
    "CHANGE_NOTHING",
    "MACHINE_SETTINGS",
    "PLUGIN_SETTINGS",
    "BeforeItExisted",
    "DataConfig",
    "MachineSettings",
    "ModelConfig",
    "OptimConfig",
    "PlannedRun",
    "Recipe",
    "ResolvedRun",
    "ResolvedTrain",
    "RunConfig",
    "TrainConfig",
    "flatten",
    "load_config",
    "load_recipe",
    "load_recorded",
    "load_scoring",
    "preset_names",
    "recorded_provenance",
    "resolve_machine",
    "resolve_sources",
]
