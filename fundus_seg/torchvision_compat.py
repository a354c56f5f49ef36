"""Imports libraries that need torchvision: quickly, and where its compiled extension does not fit the installed torch.

torchvision and timm import the whole of torch's compiler, which takes as long as torch itself, for two functions that
few of their networks call. Here these functions are imported when they are called.

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
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

_MISSING_OPERATORS = ("nms", "qnms")


def import_module(name: str, *, compiler: bool = True) -> ModuleType:
    """`importlib.import_module` for whatever imports torchvision: segmentation_models_pytorch, timm, lightning ...

    Args:
        name: of the module. Nothing else is done when torchvision is absent, already imported, or able to load its
            extension.
        compiler: whether the module may need more of torch's compiler than torchvision and timm do.
    """
    _declare_missing_operators()
    with contextlib.nullcontext() if compiler else _compiler_deferred():
        return importlib.import_module(name)


@contextlib.contextmanager
def _compiler_deferred() -> Iterator[None]:
    """Within, `torch._dynamo` stands for what is imported from it: functions that import the rest when called."""
    package, utils = "torch._dynamo", "torch._dynamo.utils"
    if package in sys.modules:
        yield
        return

    def is_compile_supported(device_type: str) -> bool:
        supported: bool = importlib.import_module(utils).is_compile_supported(device_type)
        return supported

    def disable(function: Callable[..., Any], *options: Any, **keywords: Any) -> Callable[..., Any]:
        @functools.cache
        def disabled() -> Callable[..., Any]:
            result: Callable[..., Any] = importlib.import_module(package).disable(function, *options, **keywords)
            return result

        return functools.wraps(function)(lambda *arguments, **named: disabled()(*arguments, **named))

    sys.modules |= {package: ModuleType(package), utils: ModuleType(utils)}
    vars(sys.modules[package])["disable"] = disable
    vars(sys.modules[utils])["is_compile_supported"] = is_compile_supported
    try:
        yield
    finally:
        del sys.modules[package], sys.modules[utils]


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
