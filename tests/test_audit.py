from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fundus_seg.reporting import audit
from fundus_seg.reporting.audit import Comparison, cases_table, compare, shapes_table
from fundus_seg.reporting.audit_pairs import Pair, shapes
from fundus_seg.reporting.table import render


@pytest.fixture(autouse=True)
def no_monai(monkeypatch):
    """What is shown shall not depend on what is installed; a test that wants MONAI brings its own."""
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.metrics", None)


def test_our_scores_of_known_shapes_are_those_of_arithmetic_and_of_medpy():
    compared = compare(shapes())
    assert [each for each in compared if each.wrong] == []
    known = [each for each in compared if "arithmetic" in each.others]
    assert {each.metric for each in known} == set(audit.AUDITED)
    assert all(each.difference("arithmetic") < 1e-9 for each in known)
    assert {each.metric for each in compared if "MedPy" in each.others} == {"dsc", "hd", "hd95", "asd", "assd"}


def test_shapes_tell_the_definitions_apart():
    """Shapes on which every definition gives the same number would prove nothing."""
    found = {(each.pair, each.metric): each.ours for each in compare(shapes())}
    assert found["nested squares", "hd95"] < found["nested squares", "hd95_max"] < found["nested squares", "hd"]
    assert found["thin lines", "asd"] > found["thin lines", "assd"]
    assert found["squares, 3 apart", "asd"] != found["squares, spacing 2 x 0.5", "asd"]


def test_an_error_of_ours_is_found_and_named(monkeypatch):
    monkeypatch.setattr(audit, "hausdorff95", audit.hausdorff95_max)
    compared = compare(shapes())
    wrong = {(each.pair, each.metric) for each in compared if each.wrong}
    assert ("nested squares", "hd95") in wrong
    assert {metric for _, metric in wrong} == {"hd95"}
    table = shapes_table(compared).layout
    assert any(note.startswith("WRONG: hd95 of nested squares, ours 6.43652") for note in table.notes)
    assert table.notes[-1].startswith(f"{len(wrong)} of {len(compared)}")


@pytest.mark.parametrize("ours", [0.5 + 2e-6, math.nan])
def test_a_number_beside_none_is_a_disagreement(ours):
    each = Comparison("x", "dsc", ours, {"MedPy": 0.5}, emptiness="")
    assert each.wrong
    assert not Comparison("x", "dsc", 0.5 + 5e-7, {"MedPy": 0.5}, emptiness="").wrong


def test_the_empty_policy_is_a_difference_but_no_error():
    compared = [each for each in compare(shapes()) if each.pair == "empty truth" and each.metric == "dsc"]
    assert [(each.differs("MedPy"), each.wrong) for each in compared] == [(True, False)]
    assert any("empty truth of MedPy" in note for note in shapes_table(compared).layout.notes)


def test_monai_is_asked_where_it_is_installed(monkeypatch):
    """A stand-in with MONAI's signatures: the larger percentile as hd95, infinity for an empty mask."""

    def hausdorff_distance(pred, target, *, include_background, spacing, percentile=None):
        assert pred.shape == target.shape == (1, 1, *pred.shape[2:])
        assert include_background
        return math.inf if not pred.any() else 6.4365 if percentile else 7.0711

    other = {"compute_dice": 0.0, "compute_average_surface_distance": 0.0, "compute_surface_dice": 0.0}
    module = SimpleNamespace(
        compute_hausdorff_distance=hausdorff_distance,
        **{name: lambda *masks, value=value, **options: value for name, value in other.items()},
    )
    monkeypatch.setitem(sys.modules, "monai", SimpleNamespace(metrics=module))
    monkeypatch.setitem(sys.modules, "monai.metrics", module)
    monkeypatch.setattr(audit.importlib.metadata, "version", lambda name: "0")
    compared = compare([pair for pair in shapes() if pair.name in ("nested squares", "empty prediction")])
    nested = {each.metric: each for each in compared if each.pair == "nested squares"}
    assert nested["hd95"].differs("MONAI")
    assert not nested["hd95_max"].differs("MONAI")
    assert not nested["hd"].differs("MONAI")
    table = shapes_table(compared).layout
    assert table.columns == ("arithmetic", "ours", "MedPy 0", "MONAI 0")
    row = next(row for row in table.rows if row[:2] == ("nested squares", "hd95"))
    assert row[2:] == ("6.4031", "6.4031", "6.4031", "6.4365 *")
    assert any(note.startswith("* hd95 of MONAI: the larger of the two directions'") for note in table.notes)
    assert any(note.startswith("* empty prediction of MONAI") for note in table.notes)


def test_a_table_of_cases_names_the_farthest():
    rng = np.random.default_rng(0)
    pairs = [Pair(f"case {n}", rng.random((12, 9)) < 0.5, rng.random((12, 9)) < 0.5, (2.0, 0.5)) for n in range(5)]
    compared = compare(pairs)
    assert not any(each.wrong for each in compared)
    report = cases_table(compared)
    table = report.layout
    assert [row[0] for row in table.rows] == ["dsc", "hd", "hd95", "asd", "assd"]
    assert {row[2:4] for row in table.rows} == {("5", "0")}
    assert report.frame[["masks", "differing"]].drop_duplicates().to_numpy().tolist() == [[5, 0]]
    assert "hd95" in render(report, "latex")


def test_command(command):
    assert "thin lines,hd95,8.45,8.45,8.45" in command("audit", "--format", "csv").out
    refused = command("audit", "--pred", "x", code=2).err
    assert refused.count("\n") == 1
    assert "--pred and --truth belong together" in refused
