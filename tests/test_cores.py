from __future__ import annotations

import math
import threading
import time

import pytest
from small_runs import Lines

from fundus_seg import cores
from fundus_seg.cores import core_count, map_on_cores
from fundus_seg.errors import DataError, Problem, Problems


def halved(number):
    time.sleep(0.01 / (1 + number))  # the last ends first
    if number % 2:
        raise DataError("odd", f"{number}.png")
    return number // 2


def test_only_cores_that_this_process_may_use_count(monkeypatch):
    monkeypatch.setattr(cores, "cpu_limit", lambda: math.inf)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert core_count() == 3
    monkeypatch.delattr(cores.os, "sched_getaffinity")
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 6)
    assert core_count() == 6


def test_results_and_problems_come_in_the_order_of_the_items():
    problems = Problems()
    assert map_on_cores(halved, [4, 1, 2, 3, 0], problems=problems) == [2, 1, 0]
    assert problems.found == [Problem("odd", "1.png"), Problem("odd", "3.png")]


def test_without_a_place_for_problems_the_first_is_raised_and_the_rest_is_left(monkeypatch):
    monkeypatch.setattr(cores, "core_count", lambda: 1)
    begun = []
    gate = threading.Event()

    def fail(number):
        begun.append(number)
        if number:
            gate.wait()
        raise DataError("wrong", f"{number}.png")

    with pytest.raises(DataError, match=r"^0\.png: wrong"):
        threading.Timer(0.2, gate.set).start()
        map_on_cores(fail, range(100))
    assert len(begun) < 100


def test_each_item_advances_the_progress():
    told = Counted()
    map_on_cores(halved, range(6), problems=Problems(), description="halving", progress=told)
    assert told.steps == {"halving": 6}


class Counted(Lines):
    """Counts the steps of each task."""

    def __init__(self):
        super().__init__()
        self.steps = {}

    def task(self, description, total):
        from contextlib import nullcontext

        self.steps[description] = 0

        def advance(**_):
            self.steps[description] += 1

        return nullcontext(advance)
