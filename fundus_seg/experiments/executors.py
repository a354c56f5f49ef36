"""Who works on the cells of a grid: this process, or several that stay warm from one run to the next.

Nothing heavy is imported here: a worker chooses its GPU before torch is.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import Cell, Outcome

Work = Callable[["Cell"], "Outcome"]
RETRIES = 2
"""How often a cell whose worker died is tried again; it goes on after its last whole epoch."""


class Executor(Protocol):
    """Gives each cell with its outcome, as it ends; never raises for a cell. Closed early, it leaves nobody at work."""

    def __call__(self, work: Work, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Do `work`, which raises nothing, for each of the cells."""
        ...


def serial(work: Work, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
    """One cell after the other, in this process."""
    for cell in cells:
        yield cell, work(cell)


def processes(slots: Sequence[int | None]) -> Executor:
    """An executor of long-lived processes, each at one cell at a time.

    A worker that is killed is replaced, and its cell tried again; workers die with this process, however it dies.

    Args:
        slots: the GPU of each process, by its number on this machine; None for the CPU. Of few cells, the first work.
    """

    def execute(work: Work, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        waiting = deque((cell, 0) for cell in cells)
        workers = [_Worker(work, gpu) for gpu in slots[: len(cells)]]
        try:
            for worker in workers:
                worker.begin(*waiting.popleft())
            while busy := {worker.pipe: worker for worker in workers if worker.cell is not None}:
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    cell, deaths = worker.cell, worker.deaths
                    assert cell is not None
                    outcome = worker.outcome()
                    if outcome is None and deaths < RETRIES:
                        worker.begin(cell, deaths + 1)
                        continue
                    if waiting:
                        worker.begin(*waiting.popleft())
                    yield cell, outcome or _given_up(deaths + 1)
        finally:
            for worker in workers:
                worker.stop()

    return execute


def _given_up(deaths: int) -> Outcome:
    from fundus_seg.experiments.grid_run import Outcome

    return Outcome("failed", f"worker died {deaths} times; is there memory enough for it?")


class _Worker:
    """A process at one cell at a time, and this end of the pipe to it."""

    def __init__(self, work: Work, gpu: int | None) -> None:
        self.work = work
        self.gpu = gpu
        self.cell: Cell | None = None
        self.deaths = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads and CUDA do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), self.gpu), daemon=True)
        self.process.start()
        theirs.close()  # so that its death ends the pipe

    def begin(self, cell: Cell, deaths: int) -> None:
        """Hand it a cell, on whose behalf so many workers have died; one that is dead itself is replaced."""
        if not self.process.is_alive():
            self._start()
        self.cell, self.deaths = cell, deaths
        with contextlib.suppress(OSError):  # it has just died: the end of its pipe says so
            self.pipe.send((self.work, cell))

    def outcome(self) -> Outcome | None:
        """Of the cell it was at, which it leaves; None if it died."""
        self.cell = None
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, parent: int, gpu: int | None) -> None:
    """The life of a worker."""
    if gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu] if visible else str(gpu)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the parent decides
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    while True:
        try:
            work, cell = pipe.recv()  # imports what the work needs
        except EOFError:
            return
        pipe.send(work(cell))


def _die_with(parent: int) -> None:
    """End this process when its parent is gone, in the middle of whatever it does."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
