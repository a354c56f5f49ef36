"""Provenance of a result: versions, commit, hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LIBRARIES = ("fundus-seg", "torch", "lightning", "segmentation-models-pytorch", "albumentations", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a number."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}


def provenance(gpu: str | None) -> dict[str, Any]:
    """Versions, commit, hardware and the time of day; plain values, safe for YAML and JSON.

    Args:
        gpu: name of the GPU that computes; None for the processor.
    """
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "commit": _commit(),
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "gpu": gpu,
        },
    }


def changes(recorded: Mapping[str, Any], gpu: str | None) -> list[str]:
    """Differences between a recorded provenance and this process that can change a result's last bits."""
    now = provenance(gpu)
    pairs = {"commit": (recorded.get("commit"), now["commit"])}
    for group in ("versions", "hardware"):
        before = recorded.get(group) or {}
        pairs |= {name: (before.get(name), value) for name, value in now[group].items()}
    return [f"{name}: {before} then, {after} now" for name, (before, after) in pairs.items() if before != after]


def _commit() -> str | None:
    """Commit of the checkout that this package runs from, `+changes` appended where files differ from it."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():  # an installed package, perhaps inside a repository of somebody else
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
