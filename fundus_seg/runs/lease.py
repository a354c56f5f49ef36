"""Who may write into a folder: one process at a time, whatever dies, pauses, or runs on another machine.

A lease is the file `.lease`. Its owner touches it every few seconds; who finds it untouched for `PATIENCE`, or its
owner gone from this very machine, puts a lease of their own in its place, then removes the temporary files there.

That order is why a paused owner that wakes cannot write over its successor. `atomic.atomic_path` asks for the lease
after its temporary file is written and before that takes its place: either the lease is lost already, or it is taken
afterwards and the temporary file is gone, or the file was in place before the successor began to read.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fundus_seg.errors import BusyError, LeaseLostError, RunError
from fundus_seg.runs.atomic import TEMPORARY, guarded, sweep, write_text

PATIENCE = 60.0
"""Seconds without a sign of life after which an owner counts as gone."""
_NAME = ".lease"
_RELEASED = {"released": True}


@contextlib.contextmanager
def leased(folder: Path, *, patience: float = PATIENCE, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lease of a folder, made if it is missing; within, every write of `atomic` asks for it first.

    Args:
        folder: the folder.
        patience: seconds without a sign of life after which its owner counts as gone.
        check: called once the lease is held and before anything is done; its error releases the lease. Two processes
            with different leases that each ask here for the other's never both go on.

    Raises:
        BusyError: another process holds it.
        RunError: the folder cannot be written; within, at a write: the folder or its lease was deleted.
        LeaseLostError: within, at a write: another process has taken over, since this one gave no sign of life.
    """
    lease = _Lease(folder / _NAME, patience)
    lease.take()
    over = threading.Event()
    heart = threading.Thread(target=lease.beat, args=(over,), daemon=True)
    heart.start()
    try:
        with guarded(lease.check):
            try:
                check()
                sweep(folder)
                yield
            finally:
                with contextlib.suppress(RunError):  # a lost lease, a full disk: the first error is the one to tell
                    lease.release()
    finally:
        over.set()
        heart.join()


def holder(folder: Path, *, patience: float = PATIENCE) -> str | None:
    """The process that holds the lease of a folder, as `12345 on host`; None if nobody does."""
    lease = _Lease(folder / _NAME, patience)
    there = lease.read()
    return _text(there) if lease.held(there) else None


class _Lease:
    """One process's claim on the lease file at `path`."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self.patience = patience
        self.token = uuid.uuid4().hex

    def read(self) -> dict[str, Any] | None:
        """What the file says; None if there is none, empty if it is not what `take` or `release` writes."""
        try:
            content = json.loads(self.path.read_text("utf8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            return {}
        return content if content == _RELEASED or _is_claim(content) else {}

    def held(self, there: dict[str, Any] | None) -> bool:
        """Whether what the file says is the claim of a process that may still be at work."""
        if there is None or there.get("released"):
            return False
        if there.get("machine") == _machine() and not _runs_here(there):
            return False
        with contextlib.suppress(OSError):
            # A date ahead of the folder's own clock is no sign of life: that clock was wrong then, or is wrong now.
            return abs(_now(self.path.parent) - self.path.stat().st_mtime) < self.patience
        return False

    def take(self) -> None:
        there = self.read()
        self._refuse_if_held(there)
        own = json.dumps({"token": self.token, "host": socket.gethostname(), "machine": _machine(), **_process()})
        if there is not None:
            try:
                write_text(self.path, own)
            except RunError:  # one who was quicker has swept the temporary file away
                self._refuse_if_held(self.read())
                raise
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("x", encoding="utf8") as file:  # of two at once, one fails
                file.write(own)
        except FileExistsError as error:
            raise BusyError(f"{self.path.parent}: another process has just begun to write here") from error
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror or error}); choose another folder"
            ) from error

    def _refuse_if_held(self, there: dict[str, Any] | None) -> None:
        if self.held(there):
            raise BusyError(f"{self.path.parent}: process {_text(there)} is writing here; wait, or stop it")

    def check(self) -> None:
        if self._mine():
            return
        if not os.path.lexists(self.path):
            gone = self.path if self.path.parent.is_dir() else self.path.parent
            raise RunError(f"{gone}: deleted while this process wrote there; it stops, run the command again")
        raise LeaseLostError(f"{self.path.parent}: another process has taken over; this one stops writing here")

    def beat(self, over: threading.Event) -> None:
        """Show a sign of life until `over`."""
        while not over.wait(self.patience / 6):
            with contextlib.suppress(OSError):
                if self._mine():
                    os.utime(self.path)

    def release(self) -> None:
        """Say that nobody holds it. Not removed: of a removal nobody could ask, at the last moment, whose it is."""
        write_text(self.path, json.dumps(_RELEASED))

    def _mine(self) -> bool:
        return (self.read() or {}).get("token") == self.token


def _is_claim(content: object) -> bool:
    """Whether it is what `_Lease.take` writes, here or on another system."""
    kinds: dict[str, Any] = {"token": str, "host": str, "machine": str | None, "pid": int, "started": str | None}
    return (
        isinstance(content, dict)
        and content.keys() == kinds.keys()
        and all(isinstance(content[name], kind) for name, kind in kinds.items())
    )


def _text(there: dict[str, Any] | None) -> str:
    return f"{there.get('pid')} on {there.get('host')}" if there else "unknown"


def _now(folder: Path) -> float:
    """The time by the clock that dates the folder's files: on a shared file system it may not be this machine's."""
    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile(dir=folder, prefix=".now.", suffix=TEMPORARY) as file,
    ):
        return os.fstat(file.fileno()).st_mtime
    return time.time()


def _machine() -> str | None:
    """What process numbers are unique within, until the next boot; None where the system does not tell."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _process() -> dict[str, Any]:
    return {"pid": os.getpid(), "started": _started(os.getpid())}


def _runs_here(there: dict[str, Any]) -> bool:
    """Whether a process of this machine still is, and is the one that took the lease; True where nobody can tell."""
    return there.get("machine") is None or _started(there["pid"]) == there["started"]


def _started(pid: int) -> str | None:
    """When a process began, in the system's ticks; None if it is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
