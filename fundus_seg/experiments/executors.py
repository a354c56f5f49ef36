"""Who works on the runs of an experiment: this process, or several that stay warm from one run to the next.

Nothing heavy is imported here: a worker chooses its GPU before torch is imported.
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
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

from fundus_seg.errors import UsageError
from fundus_seg.processes import start

if TYPE_CHECKING:
    from fundus_seg.experiments.grid_run import GridRun, Outcome

ExecutorName = Literal["serial", "processes", "ray"]
Work = Callable[["GridRun"], "Outcome"]
RETRIES = 2
"""How often a run is tried again after its worker died; it goes on after its last whole epoch."""


class Executor(Protocol):
    """Works on runs and gives each with its outcome as it ends.

    A run that fails raises nothing. An executor that is closed early stops all its workers.
    """

    def __call__(self, work: Work, runs: Sequence[GridRun]) -> Iterator[tuple[GridRun, Outcome]]:
        """Do `work`, which must not raise, for each of the runs."""
        ...


def serial(work: Work, runs: Sequence[GridRun]) -> Iterator[tuple[GridRun, Outcome]]:
    """Works on one run after the other, in this process."""
    for run in runs:
        yield run, work(run)


def processes(slots: Sequence[int | None]) -> Executor:
    """An executor with long-lived worker processes, each of which works on one run at a time.

    A worker that is killed is replaced, and its run is tried again. Workers die with this process, however it dies.

    Args:
        slots: the GPU of each worker, by its number on this machine; None for the CPU. If there are fewer runs than
            slots, only the first slots are used.
    """

    def execute(work: Work, runs: Sequence[GridRun]) -> Iterator[tuple[GridRun, Outcome]]:
        waiting = deque((run, 0) for run in runs)
        workers = [_Worker(work, gpu) for gpu in slots[: len(runs)]]
        try:
            for worker in workers:
                worker.begin(*waiting.popleft())
            while busy := {worker.pipe: worker for worker in workers if worker.run is not None}:
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    run, deaths = worker.run, worker.deaths
                    assert run is not None
                    outcome = worker.outcome()
                    if outcome is None and deaths < RETRIES:
                        worker.begin(run, deaths + 1)
                        continue
                    if waiting:
                        worker.begin(*waiting.popleft())
                    yield run, outcome or _given_up(deaths + 1)
        finally:
            for worker in workers:
                worker.stop()

    return execute


def choose_executor(
    name: ExecutorName,
    runs: Sequence[GridRun],
    *,
    jobs: int | None = None,
    address: str | None = None,
    gpus_per_run: float = 0,
) -> Executor:
    """The executor of a name, fitted to the runs and to this machine.

    Args:
        name: `serial` works in this process, `processes` in several worker processes, `ray` on a Ray cluster.
        runs: the runs that it will work on.
        jobs: the number of worker processes; None for as many as cores and free memory allow.
        address: the address of the Ray cluster; None for $RAY_ADDRESS, or a cluster on this machine.
        gpus_per_run: the share of a GPU that Ray gives each run; 0 for the CPU.

    Raises:
        UsageError: Ray is not installed, or worker processes are to work on runs over several devices.
    """
    devices = max(run.config.train.devices for run in runs)
    match name:
        case "serial":
            return serial
        case "processes":
            if devices > 1:
                raise UsageError(
                    f"train.devices {devices} with --executor processes: a worker process cannot start the processes "
                    "of a run over several devices; choose --executor serial"
                )
            # Torch is asked for GPUs only where there is work.
            return lambda work, planned: processes(available_slots(runs, jobs))(work, planned)
        case "ray":
            from fundus_seg.experiments.ray_executor import ray_executor

            cores = max(run.threads * run.config.train.devices for run in runs)
            return ray_executor(address=address, cpus=cores, gpus=gpus_per_run)
    assert_never(name)


def runs_at_once(name: ExecutorName, runs: Sequence[GridRun], jobs: int | None = None) -> int:
    """How many runs are trained at a time on this machine, at most; what a Ray cluster can take is not asked."""
    return 1 if name == "serial" else len(available_slots(runs, jobs))


def available_slots(runs: Sequence[GridRun], jobs: int | None = None) -> list[int | None]:
    """The slots for `processes` on this machine; see `worker_slots`."""
    from fundus_seg.experiments.capacity import gpu_count, worker_slots

    return worker_slots(runs, gpu_count(), jobs)


def _given_up(deaths: int) -> Outcome:
    from fundus_seg.experiments.grid_run import Outcome

    return Outcome("failed", f"its worker died {deaths} times; does it have enough memory?")


class _Worker:
    """A worker process, and this end of the pipe to it."""

    def __init__(self, work: Work, gpu: int | None) -> None:
        self.work = work
        self.gpu = gpu
        self.run: GridRun | None = None
        self.deaths = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads and CUDA do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), self.gpu), daemon=True)
        start(self.process)
        theirs.close()  # so that the pipe ends when the worker dies

    def begin(self, run: GridRun, deaths: int) -> None:
        """Send the worker a run, and restart it first if it died; `deaths` counts the workers lost on this run."""
        if not self.process.is_alive():
            self._start()
        self.run, self.deaths = run, deaths
        with contextlib.suppress(OSError):  # the worker has just died, which the end of its pipe tells
            self.pipe.send((self.work, run))

    def outcome(self) -> Outcome | None:
        """Receive the outcome of the worker's run; None if the worker died."""
        self.run = None
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            return None

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, parent: int, gpu: int | None) -> None:
    """What a worker process does: receive a run, work on it, send its outcome."""
    if gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu] if visible else str(gpu)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C does
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    while True:
        try:
            work, run = pipe.recv()  # this imports the modules of the work
        except EOFError:
            return
        pipe.send(work(run))


def _die_with(parent: int) -> None:
    """End this process at once when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
