"""fundus-seg: optic-disc and optic-cup segmentation that generalises to unseen cameras and hospitals."""

from __future__ import annotations

from typing import Any

__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """Import what `load_model` and `__version__` need only when somebody asks for them: `--help` stays quick."""
    if name == "load_model":
        from fundus_seg.inference.predict import load_model

        return load_model
    if name == "__version__":
        from importlib.metadata import version

        return version("fundus-seg")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
