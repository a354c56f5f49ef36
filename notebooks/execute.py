"""Execute the notebooks beside this file and keep their outputs in them: `make notebooks`.

A notebook works in a folder that is thrown away, so its outputs name no place of this machine; nothing else of it is
kept either: no times, no versions.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(path: Path, folder: Path) -> NotebookNode:
    """The notebook in a file after all its cells have run in a folder, with their outputs.

    Raises:
        CellExecutionError: a cell has raised an error.
    """
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of tqdm, which would draw a bar that is not kept
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=3600, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    return notebook


if __name__ == "__main__":
    for path in NOTEBOOKS:
        with TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
