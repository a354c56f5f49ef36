"""`data prepare`: trees with the published names and numbers of each set, whole and with each quirk."""

from __future__ import annotations

import csv

import pytest
import raw_trees
from PIL import Image

from fundus_seg.data import open_root
from fundus_seg.datasets import data_set
from fundus_seg.datasets.dofe_split import members
from fundus_seg.datasets.prepare import prepare


def prepared(name, paths, out, *, allow_missing=False, force=False, **rules):
    dataset = data_set(name)
    given = {"crop": None if dataset.as_is else "32"} | rules
    return prepare(dataset, paths, out, dataset.rules(**given), allow_missing=allow_missing, force=force)


def rows_of(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


TREES = {
    "drishti-gs": raw_trees.drishti,
    "rim-one-r3": raw_trees.rim_one_r3,
    "refuge-train": raw_trees.refuge_train,
    "refuge-val": raw_trees.refuge_val,
    "dofe": raw_trees.dofe,
}
IN_DOFE = {"drishti-gs": "A", "rim-one-r3": "B", "refuge-train": "C", "refuge-val": "D"}


class TestWhole:
    @pytest.mark.parametrize("name", IN_DOFE)
    def test_the_benchmarks_split_and_a_mask_of_each_case(self, name, tmp_path):
        raw = raw_trees.laid(TREES[name](), tmp_path / "raw")
        made = prepared(name, [raw], tmp_path / "out")
        expected = {
            each.removeprefix("g").removeprefix("n") if name == "drishti-gs" else each: split
            for each, split in members(IN_DOFE[name]).items()
        }
        assert {row["name"]: row["split"] for row in rows_of(tmp_path / "out").values()} == expected
        root = open_root(tmp_path / "out", least=1)
        assert root.domains == (name,)
        cases = [case for split in ("train", "test") for case in root.cases(name, split)]
        assert len(cases) == sum(made.cases.values()) == len(expected)
        assert Image.open(cases[0].image).size == Image.open(cases[0].mask).size == (32, 32)
