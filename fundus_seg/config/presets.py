"""The presets that ship with the package: a small YAML file each, in the folder `configs/`."""

from __future__ import annotations

import importlib.resources


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = importlib.resources.files("fundus_seg.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The YAML text of the preset `name`, which must be one of `preset_names`."""
    return (importlib.resources.files("fundus_seg.configs") / f"{name}.yaml").read_text("utf8")
