"""Settings: what they are, and how they are read from presets, YAML files and `--set`."""

from fundus_seg.config.settings import (
    MACHINE_SETTINGS,
    PLUGIN_SETTINGS,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    flatten,
    load_config,
    preset_names,
    preset_settings,
    recorded_provenance,
)

__all__ = [
    "MACHINE_SETTINGS",
    "PLUGIN_SETTINGS",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "TrainConfig",
    "flatten",
    "load_config",
    "preset_names",
    "preset_settings",
    "recorded_provenance",
]
