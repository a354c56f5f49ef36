"""Operators, losses, augmentations and methods by name: a short built-in name, or `package.module:factory` of your own.

Code from outside the package is imported only if the caller names it, or the settings file that the caller trains from
does. A name in any other file, such as the operator of a checkpoint, is not imported: whoever opens that file must have
named the operator before, in this process.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fundus_seg.digests import file_digest
from fundus_seg.errors import FundusSegError, UsageError, one_line, unknown_name

FORM = "package.module:factory"
_IDENTIFIER = r"[^\W\d]\w*"
_PLUGIN = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}")


@dataclass(frozen=True)
class Plugin:
    """A factory from outside the package.

    Attributes:
        factory: the function or class that `package.module:factory` names.
        digest: 16 hexadecimal digits of the SHA-256 of the module's file, taken when the module was imported. Later
            changes of the file do not change it, and it does not cover what the module imports.
    """

    factory: Any
    digest: str


_loaded: dict[str, Plugin] = {}
_digests: dict[str, str] = {}
"""Digest per module, taken once at import, shared by all plugins of the module."""


def is_plugin(name: object) -> bool:
    """Whether the name has the form `package.module:factory`; nothing is imported."""
    return isinstance(name, str) and _PLUGIN.fullmatch(name) is not None


def is_unnamed(name: object) -> bool:
    """Whether the name is that of a plugin which this process has not loaded."""
    return is_plugin(name) and name not in _loaded


def check_name(kind: str, name: str, builtin: Iterable[str]) -> str:
    """The name itself, if it is built in or has the form `package.module:factory`; nothing is imported.

    Raises:
        UsageError: the name is neither; the nearest built-in name is offered.
    """
    names = list(builtin)
    if name not in names and not is_plugin(name):
        raise UsageError(f"{unknown_name(kind, name, names)}; or {FORM} of your own")
    return name


def parts_of(kind: str, name: str, builtin: Iterable[str], parts: Collection[str]) -> list[str]:
    """The names that are joined by `+` in a name, in the order of `parts`; a name without `+` is the only one.

    Args:
        kind: what is named, for error messages.
        name: as for `check_name`, or several of `parts`.
        builtin: names that may stand alone.
        parts: names that may be joined.

    Raises:
        UsageError: a name is unknown, must stand alone, or is given twice.
    """
    if "+" not in name or not parts:
        return [check_name(kind, name, builtin)]
    return joined(kind, name, parts)


def joined(kind: str, name: str, parts: Collection[str]) -> list[str]:
    """The names that are joined by `+` in a name, or the only one, in the order of `parts`.

    Raises:
        UsageError: a name is not one of `parts`, or is given twice.
    """
    given = [part.strip() for part in name.split("+")]
    for part in given:
        if part not in parts:
            article = "an" if kind[0] in "aeiou" else "a"
            raise UsageError(f"{name}: {unknown_name(f'part of {article} {kind}', part, parts)}")
    if len({*given}) < len(given):
        raise UsageError(f"{kind} '{name}' names a part twice")
    return [part for part in parts if part in given]


def find(kind: str, name: str, builtin: Mapping[str, str]) -> Any:
    """The factory of a name, imported when it is asked for.

    Args:
        kind: what is named, for error messages: "operator", "loss", ...
        name: a key of `builtin`, or `package.module:factory`.
        builtin: one of the tables of `fundus_seg.builtins`. What it names is not recorded as a plugin.

    Raises:
        UsageError: the name is unknown, or the plugin cannot be loaded.
    """
    check_name(kind, name, builtin)
    return pkgutil.resolve_name(builtin[name]) if name in builtin else load(name).factory


def load(name: str) -> Plugin:
    """The plugin `package.module:factory`, imported once a process, with the current directory on the path.

    Raises:
        UsageError: the name has another form, the module is not found, raises on import or has no file, or holds no
            function or class of that name.
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


@contextlib.contextmanager
def blamed(name: str) -> Iterator[None]:
    """Within it the code of a plugin is called; whatever it raises becomes one line that says where.

    Nothing is changed for a built-in name, whose errors are faults of ours.

    Raises:
        UsageError: the plugin has raised.
    """
    try:
        yield
    except FundusSegError:
        raise
    except Exception as error:
        if not is_plugin(name):
            raise
        module = sys.modules.get(name.partition(":")[0])
        raise UsageError(
            f"{name}: raises {type(error).__name__} at {_place(error, module)}: {one_line(error)}"
        ) from error


def _place(error: Exception, module: ModuleType | None = None) -> str:
    """File and line of the last call in the module, or else of the last call at all."""
    calls = traceback.extract_tb(error.__traceback__)
    own = [call for call in calls if call.filename == getattr(module, "__file__", None)]
    last = (own or calls)[-1]
    return f"{last.filename}:{last.lineno}"


def _import(name: str, where: str) -> ModuleType:
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.append(here)  # last: a file of it that is named like a library must not take the library's place
    try:
        module = importlib.import_module(where)
    except Exception as error:  # whatever the module raises
        if isinstance(error, ModuleNotFoundError) and f"{where}.".startswith(f"{error.name}."):
            raise UsageError(
                f"{name}: no module '{error.name}' in {here} or on the Python path; start in the folder that holds it, "
                "or install it"
            ) from error
        raise UsageError(
            f"{name}: importing {where} raises {type(error).__name__} at {_place(error)}: {one_line(error)}"
        ) from error
    if not getattr(module, "__file__", None):
        raise UsageError(f"{name}: {where} has no file whose digest a run could record; write it into a module's .py")
    if where not in _digests:
        _digests[where] = file_digest(Path(str(module.__file__)))[:16]
    return module
