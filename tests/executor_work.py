"""Work for the workers of `test_executors`, in place of training: imported there in no time, since torch is not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def give_pid(run: Path) -> int:
    return os.getpid()


def give_gpu(run: Path) -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def die_once(run: Path) -> int:
    """Killed at its first try."""
    if not run.exists():
        run.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(run: Path) -> None:
    os._exit(1)


def linger(run: Path) -> None:
    """At work for ever, its process number in the file's name."""
    (run / f"{os.getpid()}.pid").touch()
    time.sleep(600)
