"""Methods of domain generalisation: one module each."""

from __future__ import annotations

from torch import Tensor

from fundus_seg.builtins import METHODS
from fundus_seg.errors import UsageError
from fundus_seg.plugins import blamed, find
from fundus_seg.training.method import Method


def build_method(name: str) -> Method:
    """An object of the method `name`: a key of `fundus_seg.builtins.METHODS`, or `package.module:factory` of your own.

    Raises:
        UsageError: the name is unknown, the plugin cannot be loaded, or its factory raises or returns something else
            than a Method.
    """
    factory = find("method", name, METHODS)
    with blamed(name):
        method = factory()
    if not isinstance(method, Method):
        raise UsageError(f"{name}: gives {type(method).__name__}: return an instance of fundus_seg.training.Method")
    return method


def state_of(name: str, method: Method) -> dict[str, Tensor]:
    """What a run must keep of the method `name` to go on to the same bits.

    Raises:
        UsageError: the method is a plugin, and gives something else than tensors by name.
    """
    with blamed(name):
        state = method.state()
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{name}: state() gives something else than tensors: return a dict of tensors by name")
    return state
