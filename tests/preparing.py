"""How tests prepare a tree of a data set, and read what came out."""

from __future__ import annotations

import csv
import hashlib
from io import BytesIO

import openpyxl
from raw_trees import zipped

from fundus_seg.datasets import data_set
from fundus_seg.datasets.finding import find_cases
from fundus_seg.datasets.prepare import prepare
from fundus_seg.datasets.raw import Raw

FIRST = "Drishti-GS1_files/Training/Images/drishtiGS_002.png"
"""The first photograph of the training set of Drishti-GS."""
MANY = ("0_ODsegSoftmap.png", "1_ODsegSoftmap.png")
"""How the paths of 21 maps end."""


def prepared(name, paths, out, *, allow_missing=False, force=False, **rules):
    dataset = data_set(name)
    given = rules if dataset.as_is or "scale_to_disc" in rules else {"crop": "32"} | rules
    return prepare(dataset, paths, out, dataset.rules(**given), allow_missing=allow_missing, force=force)


def found(name, tree, tmp_path, **rules):
    """What is found in a zip of a tree, unpacked where it must be."""
    (tmp_path / "scratch").mkdir(exist_ok=True)
    raw = Raw([zipped(tree, tmp_path / "raw.zip")], tmp_path / "scratch")
    return find_cases(data_set(name), data_set(name).rules(**rules), raw)


def some(tree, *names):
    """The files of a tree that belong to some cases."""
    return {path: content for path, content in tree.items() if any(name in path for name in names)}


def rows_of(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def workbook(*rows):
    book, content = openpyxl.Workbook(), BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(content)
    return content.getvalue()
