from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PLACE = re.compile(r"(?<![\w.:/<])/(?:home|root|tmp|work|mnt|usr|opt|var|Users)/|site-packages|[A-Z]:\\\\")
"""A path of the machine on which a notebook ran."""


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def source(path: Path) -> ast.Module:
    """The code of a notebook, without the lines that are for IPython."""
    text = "\n".join(cell.source for cell in code_cells(path))
    return ast.parse("\n".join(line for line in text.splitlines() if not line.startswith("%")))


def kinds(cells: list[nbformat.NotebookNode]) -> list[list[set[str]]]:
    """What is shown below each cell: the forms of each output."""
    return [[set(output.get("data", {"stream": ""})) for output in cell.outputs] for cell in cells]


@pytest.mark.slow
@each_notebook
def test_a_notebook_shows_what_is_committed(path, tmp_path, monkeypatch):
    """Its kinds of outputs: numbers differ in their last digits from machine to machine, and pictures with them."""
    monkeypatch.syspath_prepend(str(FOLDER))
    notebook = importlib.import_module("execute").executed(path, tmp_path)
    assert kinds([cell for cell in notebook.cells if cell.cell_type == "code"]) == kinds(code_cells(path))


@each_notebook
def test_a_notebook_is_listed(path):
    assert f"](../notebooks/{path.name})" in (FOLDER.parent / "docs/notebooks.md").read_text("utf8")


@each_notebook
def test_a_notebook_is_committed_as_it_ran(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"display_data", "execute_result", "stream"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert any({"image/jpeg", "image/png"} & set(output.get("data", {})) for output in outputs)
    assert "No patient was photographed" in nbformat.read(path, as_version=4).cells[0].source


@each_notebook
def test_a_notebook_is_small_and_names_no_place_of_a_machine(path):
    text = path.read_text("utf8")
    assert len(text) < 1_000_000
    notebook = json.loads(text)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
        for output in cell.get("outputs", []):
            shown = {form: text for form, text in output.get("data", {}).items() if not form.startswith("image/")}
            assert PLACE.search(json.dumps([shown, output.get("text", "")])) is None


@each_notebook
def test_a_notebook_takes_public_names_alone_and_defines_none(path):
    module = source(path)
    assert not [each for each in ast.walk(module) if isinstance(each, ast.FunctionDef | ast.ClassDef)]
    imports = [each for each in module.body if isinstance(each, ast.ImportFrom) and "fundus_seg" in str(each.module)]
    assert imports
    for each in imports:
        assert {name.name for name in each.names} <= set(importlib.import_module(each.module).__all__)
    assert not [each for each in ast.walk(module) if isinstance(each, ast.Attribute) and each.attr.startswith("_")]


def test_what_an_output_must_not_hold_is_found():
    for text in ("in /home/ann/runs", "'/tmp/x/cases.csv'", sys.prefix + "/lib/python3/site-packages"):
        assert PLACE.search(text)
    for text in ("runs/paper/A", "Dice of 90 / 80", "</tr></table>", "https://example.org/home/"):
        assert not PLACE.search(text)
