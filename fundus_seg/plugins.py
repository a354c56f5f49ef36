"""Ideas from outside the package: `package.module:factory`, wherever a setting takes the name of a built-in one.

Only what the caller names, or the settings file that the caller trains from, is imported. A name that another file
holds, a checkpoint's operator say, is not: whoever opens the file must have named it before, in this process.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fundus_seg.digests import file_digest
from fundus_seg.errors import UsageError, unknown_name

FORM = "package.module:factory"
_IDENTIFIER = r"[^\W\d]\w*"
_PLUGIN = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}")


@dataclass(frozen=True)
class Plugin:
    """What `package.module:factory` names.

    Attributes:
        factory: the object itself: a function or a class.
        digest: 16 hexadecimal digits of the module's file when it was imported, whatever was written there since; of
            what the module imports it says nothing.
    """

    factory: Any
    digest: str


_loaded: dict[str, Plugin] = {}
_digests: dict[str, str] = {}
"""By module: all plugins of one are of the code that runs, and that is read once."""


def is_plugin(name: object) -> bool:
    """Whether it has the form of a plugin's name; nothing is imported."""
    return isinstance(name, str) and _PLUGIN.fullmatch(name) is not None


def is_unnamed(name: object) -> bool:
    """Whether it is the name of a plugin that this process has not been told to load."""
    return is_plugin(name) and name not in _loaded


def check_name(kind: str, name: str, builtin: Iterable[str]) -> str:
    """The name itself, if it is a built-in one's or has the form of a plugin's.

    Raises:
        UsageError: it is neither; the nearest built-in name is offered.
    """
    names = list(builtin)
    if name not in names and not is_plugin(name):
        raise UsageError(f"{unknown_name(kind, name, names)}; or {FORM} of your own")
    return name


def find(kind: str, name: str, builtin: Mapping[str, Any]) -> Any:
    """What `builtin` holds under the name, or the plugin of that name.

    Raises:
        UsageError: an unknown name, or a plugin that cannot be loaded.
    """
    check_name(kind, name, builtin)
    return builtin[name] if name in builtin else load(name).factory


def load(name: str) -> Plugin:
    """The plugin `package.module:factory`, imported once a process, with the current directory on the path.

    Raises:
        UsageError: no such form, module or name in it, a module that raises on import or has no file, or an object
            that cannot be called.
    """
    if name not in _loaded:
        if not is_plugin(name):
            raise UsageError(f"'{name}' is not the name of a plugin: write it as {FORM}")
        where, _, attribute = name.partition(":")
        module = _import(name, where)
        factory = getattr(module, attribute, None)
        if not callable(factory):
            callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise UsageError(f"{name}: {unknown_name('factory', attribute, callables)} in {module.__file__}")
        _loaded[name] = Plugin(factory, _digests[where])
    return _loaded[name]


def _import(name: str, where: str) -> ModuleType:
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)  # as `python -m` does; a console script has its own folder there
    try:
        module = importlib.import_module(where)
    except Exception as error:  # whatever the module raises
        if isinstance(error, ModuleNotFoundError) and f"{where}.".startswith(f"{error.name}."):
            raise UsageError(
                f"{name}: no module '{error.name}' in {here} or on the Python path; start in the folder that holds it, "
                "or install it"
            ) from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{name}: importing {where} raises {type(error).__name__} at {last.filename}:{last.lineno}: {reason}"
        ) from error
    if not getattr(module, "__file__", None):
        raise UsageError(f"{name}: {where} has no file whose digest a run could record; write it into a module's .py")
    if where not in _digests:
        _digests[where] = file_digest(Path(str(module.__file__)))[:16]
    return module
