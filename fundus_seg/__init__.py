"""fundus-seg: optic-disc and optic-cup segmentation that generalises to unseen cameras and hospitals."""

from __future__ import annotations

from typing import Any

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """Import `load_model`, and torch with it, only when somebody asks for it: `fundus-seg --help` stays quick."""
    if name == "load_model":
        from fundus_seg.inference.predict import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
