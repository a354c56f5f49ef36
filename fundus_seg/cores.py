"""Work on all the cores that this process may use."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fundus_seg.container import cpu_limit
from fundus_seg.errors import Problems
from fundus_seg.progress import SILENT, Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def core_count() -> int:
    """The number of whole cores that this process may use, at least one.

    They are fewer than the machine has, where the process is bound to some of them or its container has less time.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cpu_limit())))


def map_on_cores(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    problems: Problems | None = None,
    description: str = "",
    progress: Progress = SILENT,
) -> list[Result]:
    """Call a function on each item, in a thread for each core, and return the results in the order of the items.

    Args:
        function: reads and decodes files, say: work that releases Python's lock.
        items: one argument for each call.
        problems: collects the DataErrors of the calls, whose results are then missing. None: the first error is raised.
        description: the name of the work beside the progress bar.
        progress: where the progress is shown.
    """
    results: list[Result] = []
    gather = contextlib.nullcontext if problems is None else problems.gather
    with progress.task(description, total=len(items)) as advance, ThreadPoolExecutor(core_count()) as pool:
        try:
            for future in [pool.submit(function, item) for item in items]:
                with gather():
                    results.append(future.result())
                advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Generator[Result, None, None]:
    """Call a function on each item in threads, one for each core, while the caller works on earlier results.

    The results come in the order of the items. Up to `ahead` calls have begun before their results are asked for. The
    first error is raised where its result would have come. No thread outlives the iterator: it ends them when it is
    exhausted, closed or dropped, and when it raises.
    """
    pool = ThreadPoolExecutor(core_count(), thread_name_prefix="map_ahead")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
