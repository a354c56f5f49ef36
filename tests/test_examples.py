"""Runs the examples in docstrings."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from fundus_seg.ops import functional, tvconv


@pytest.mark.parametrize("module", [functional, tvconv])
def test_examples_show_what_is_returned(module: ModuleType) -> None:
    ran = doctest.testmod(module)
    assert ran.attempted > 0
    assert ran.failed == 0
