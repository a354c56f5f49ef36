"""Methods of domain generalisation, by the names that `train.method` takes."""

from __future__ import annotations

from collections.abc import Callable

from fundus_seg.errors import UsageError
from fundus_seg.plugins import find
from fundus_seg.training.method import Method
from fundus_seg.training.methods.fourier import FourierMix
from fundus_seg.training.methods.mixstyle import MixStyle
from fundus_seg.training.methods.vrex import VREx

METHODS: dict[str, Callable[[], Method]] = {"none": Method, "mixstyle": MixStyle, "fourier": FourierMix, "vrex": VREx}


def build_method(name: str) -> Method:
    """The method `name`: a key of METHODS, or `package.module:factory` of such a factory.

    Raises:
        UsageError: an unknown name, a plugin that cannot be loaded or gives something else than a Method.
    """
    method = find("method", name, METHODS)()
    if not isinstance(method, Method):
        raise UsageError(f"{name}: gives {type(method).__name__}: return an instance of fundus_seg.training.Method")
    return method
