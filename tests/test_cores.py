from __future__ import annotations

import math
import threading
import time

import pytest
from small_runs import Lines

from fundus_seg import cores
from fundus_seg.cores import core_count, map_ahead, map_on_cores
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


class TestMapAhead:
    def test_results_come_in_the_order_of_the_items_and_an_error_in_its_place(self):
        results = map_ahead(halved, [4, 2, 0, 1, 6], ahead=3)
        assert [next(results), next(results), next(results)] == [2, 1, 0]
        with pytest.raises(DataError, match="odd"):
            next(results)
        assert not list(results)
        assert not ahead_threads()

    @pytest.mark.parametrize("cores_there", [1, 3])
    def test_the_next_items_are_worked_on_while_the_caller_has_a_result_and_no_more(self, cores_there, monkeypatch):
        monkeypatch.setattr(cores, "core_count", lambda: cores_there)
        done = [threading.Event() for _ in range(9)]
        results = map_ahead(lambda number: done[number].set(), range(9), ahead=2)
        next(results)
        assert done[1].wait(10) and done[2].wait(10)
        assert not any(event.is_set() for event in done[3:])
        results.close()

    def test_an_iterator_that_is_closed_dropped_or_interrupted_leaves_no_thread(self):
        results = map_ahead(abs, range(100), ahead=10)
        next(results)
        assert ahead_threads()
        results.close()
        assert not ahead_threads()
        next(map_ahead(abs, range(100), ahead=10))
        assert not ahead_threads()
        with pytest.raises(KeyboardInterrupt):
            for _ in map_ahead(abs, range(100), ahead=10):
                raise KeyboardInterrupt
        assert not ahead_threads()


def ahead_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("map_ahead")]
