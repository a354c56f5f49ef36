"""Work in three steps on many things, the steps of different things at a time, in a bounded window and in order."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

_NICER = 5

Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Finished = TypeVar("Finished")
Result = TypeVar("Result")


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Sequence[Read]], Sequence[Computed]],
    finish: Callable[[Computed], Finished],
    settle: Callable[[Finished], None],
    *,
    batch: int,
    threads: int,
    window: Callable[[], int],
) -> None:
    """Read, compute, finish and settle each item.

    `read` and `finish` run in `threads` threads, for several items at a time. `compute` runs in this thread, for one
    batch after the other, and `settle` in a thread of its own, for one item after the other; both keep the order of the
    items. The threads share the context variables of this one.

    Whatever ends `compute`, as Ctrl-C does, what it has computed until then is still finished and settled.

    Args:
        items: the things.
        read: first step.
        compute: second step, of at most `batch` things; it returns as many.
        finish: third step.
        settle: last step.
        batch: the number of things that are computed at a time.
        threads: the number of threads.
        window: how many things may be on their way before `compute`, and as many after it. It is asked again and again,
            and at least one batch is always on its way.

    Raises:
        Exception: the first one that a step has raised, in the order of the items; nothing is settled after it.
    """
    waiting = iter(items)
    ahead: deque[Future[Read]] = deque()
    behind: deque[Future[None]] = deque()
    broken = False

    def settle_next(finishing: Future[Finished]) -> None:
        nonlocal broken
        if broken:
            return
        try:
            settle(finishing.result())
        except BaseException:
            broken = True
            raise

    with _threads(threads) as submit, _threads(1) as submit_last:
        try:
            while True:
                for item in islice(waiting, max(0, max(batch, window()) - len(ahead))):
                    ahead.append(submit(read, item))
                if not ahead:
                    break
                things = [ahead.popleft().result() for _ in range(min(batch, len(ahead)))]
                for computed in compute(things):
                    behind.append(submit_last(settle_next, submit(finish, computed)))
                while behind and (behind[0].done() or len(behind) > max(batch, window())):
                    behind.popleft().result()
        finally:
            for reading in ahead:
                reading.cancel()
            for settling in behind:
                settling.result()


@contextlib.contextmanager
def _threads(number: int) -> Iterator[Callable[..., Future[Any]]]:
    """A function that calls another in one of some threads, with the context variables of the caller."""
    with ThreadPoolExecutor(number, initializer=_yield_to_others) as pool:

        def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            return pool.submit(contextvars.copy_context().run, partial(function, *arguments))

        yield submit


def _yield_to_others() -> None:
    """Lower the priority of this thread, so that `compute` keeps its core however many threads there are."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
