from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fundus_seg.config import preset_names

ROOT = Path(__file__).parents[1]


def test_presets_are_found_by_name():
    assert preset_names() == ["demo", "paper", "released-code", "starter", "strong", "tiny"]


def test_every_package_is_listed_in_setup_cfg():
    listed = (ROOT / "setup.cfg").read_text()
    for folder in {path.parent for path in (ROOT / "fundus_seg").rglob("*.py")}:
        assert f"\n    {'.'.join(folder.relative_to(ROOT).parts)}\n" in listed


def test_constraints_pin_every_dependency():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    required = importlib.metadata.requires("fundus-seg") or []
    names = {requirement.split(";")[0].split(" ")[0].split("=")[0].split("<")[0].split(">")[0].lower()
             for requirement in required}  # fmt: skip
    assert names <= pinned


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(tmp_path):
    """In a clean environment: the command, its presets by name, and a whole tiny run on the phantom."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {"fundus_seg/configs/paper.yaml", "fundus_seg/py.typed", "fundus_seg_cli/main.py"}
    shipped |= {f"fundus_seg/reporting/page/{name}" for name in ("report.html", "grid.html", "page.css", "page.js")}
    shipped |= {"fundus_seg/reporting/published/tvconv2022.csv", "fundus_seg/datasets/dofe_split.json"}
    assert shipped <= set(names)
    assert not any(name.startswith(("tests/", "configs/", "benchmarks/")) for name in names)

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    bin_folder = tmp_path / "env/bin"
    install = [str(bin_folder / "pip"), "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(install, check=True)
    outside = {**os.environ, "FUNDUS_SEG_CACHE": str(tmp_path / "cache")}
    outside.pop("PYTHONPATH", None)

    def call(*arguments: str) -> str:
        command = [str(bin_folder / "fundus-seg"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=outside, check=True, capture_output=True, text=True).stdout

    call("data", "phantom", "data/Fundus", "--per-domain", "6")
    call("train", "--config", "tiny", "--holdout", "A", "--set", "train.selection=last")
    assert "PHANTOM" in call("evaluate", "--format", "markdown")
