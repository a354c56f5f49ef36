"""Timing of jobs side by side: each job runs once in every round, so that other work on the machine affects all alike.

A ratio is computed within each round; the pages show its median over the rounds, with the quartiles in brackets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Job = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some measurements."""

    median: float
    first: float
    third: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        first, median, third = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, first, third)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.first:.2f}-{self.third:.2f})"


@dataclass(frozen=True)
class Timings:
    """Seconds of each job, one value per round."""

    seconds: Mapping[str, list[float]]

    def milliseconds(self, job: str) -> Spread:
        return Spread.of([1e3 * value for value in self.seconds[job]])

    def ratio(self, job: str, to: str) -> Spread:
        """How many times as long as `to` the job takes."""
        return Spread.of([a / b for a, b in zip(self.seconds[job], self.seconds[to], strict=True)])


def side_by_side(
    jobs: Mapping[str, Job], *, rounds: int, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter
) -> Timings:
    """Run all jobs in turn for `warm_up` rounds, then for `rounds` rounds that are measured in seconds of `clock`."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(-warm_up, rounds):
        for name, job in jobs.items():
            started = clock()
            job()
            if number >= 0:
                seconds[name].append(clock() - started)
    return Timings(seconds)
