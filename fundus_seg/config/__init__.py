"""Settings: what they are, and how they are read from presets, YAML files and `--set`."""

from fundus_seg.config.settings import (
    AUGMENTATIONS,
    LOSSES,
    MACHINE_SETTINGS,
    METHODS,
    OPERATORS,
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
    "AUGMENTATIONS",
    "LOSSES",
    "MACHINE_SETTINGS",
    "METHODS",
    "OPERATORS",
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
