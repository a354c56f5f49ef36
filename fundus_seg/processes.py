"""Start further processes of this program, which import what this one would import, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess


def start(process: BaseProcess) -> None:
    """Start a process of the method `spawn`, without the current directory at the head of its path.

    Python puts it there for `python -c`, by which `spawn` starts a process: a file `pickle.py` that happens to lie
    there would be run. The path of this process is then handed on as it is.
    """
    with environment({"PYTHONSAFEPATH": "1"}):
        process.start()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables within; the caller's afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
