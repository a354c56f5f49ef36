"""The computed parts of the pages, and what they are computed from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fundus_seg.config import preset_settings
from fundus_seg.experiments.capacity import BYTES_PER_PIXEL

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def make():
    """The module docs/make.py."""
    spec = importlib.util.spec_from_file_location("make_docs", REPOSITORY / "docs" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_making_the_pages_again_changes_nothing(make):
    for page in make.PAGES:
        text = page.read_text("utf8")
        assert make.made(text) == text, f"{page}: run `make docs`"


def test_every_part_stands_in_a_page(make):
    pages = "".join(page.read_text("utf8") for page in make.PAGES)
    assert [name for name in make.PARTS if pages.count(f"<!-- make docs: {name} -->") != 1] == []


def test_a_part_is_made_anew(make, monkeypatch):
    monkeypatch.setitem(make.PARTS, "speed", lambda: "fast")
    text = "before\n<!-- make docs: speed -->\nslow\n<!-- end -->\nafter\n"
    assert make.made(text) == "before\n<!-- make docs: speed -->\n\nfast\n\n<!-- end -->\nafter\n"
    assert make.made(make.made(text)) == make.made(text)


def test_the_grid_reckons_with_the_largest_measured_operator(make):
    size = preset_settings("paper", holdout="A").data.size
    assert BYTES_PER_PIXEL * size**2 == max(make.TENSORS_MIB.values()) * 2**20


def test_no_holdout_changes_the_steps_of_an_epoch(make):
    assert {max(count for key, count in make.TRAIN.items() if key != holdout) for holdout in make.TRAIN} == {320}
    assert make.steps_of_an_epoch() == 20
