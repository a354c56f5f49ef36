"""Imports libraries that need torchvision, where its compiled extension does not fit the installed torch.

A torchvision built for CUDA beside a CPU build of torch cannot load its extension and then fails at import with
`operator torchvision::nms does not exist`: it registers Python kernels for operators that only the extension declares.
With their schemas declared first it imports and runs, and only the detection operators themselves stay unusable.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

import torch

_MISSING_OPERATORS = ("nms", "qnms")


def import_module(name: str) -> ModuleType:
    """`importlib.import_module` for whatever imports torchvision: segmentation_models_pytorch, timm, lightning ...

    Does nothing else when torchvision is absent, already imported, or able to load its extension.
    """
    _declare_missing_operators()
    return importlib.import_module(name)


@functools.cache  # once a process; the cache also keeps the library alive, and with it the declarations
def _declare_missing_operators() -> torch.library.Library | None:
    if "torchvision" in sys.modules or _has_nms():
        return None
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return None
    extension = importlib.machinery.PathFinder.find_spec("_C", spec.submodule_search_locations)
    if extension is not None and extension.origin is not None:
        with contextlib.suppress(OSError):  # as torchvision/extension.py does
            torch.ops.load_library(extension.origin)
    if _has_nms():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for operator in _MISSING_OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _has_nms() -> bool:
    return hasattr(torch.ops.torchvision, "nms")
