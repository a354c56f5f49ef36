"""The code blocks of every page: command lines are read by the program, Python and domain files are run."""

from __future__ import annotations

import csv
import doctest
import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

from fundus_seg.data import open_root
from fundus_seg.data.crop import as_row, crop_at
from fundus_seg.ops.dispatch import using
from fundus_seg_cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTED_ELSEWHERE = {"deploy.md": "test_onnx.py", "extending.md": "test_plugins.py"}
"""Pages whose Python needs more than `workplace` has, and the tests that run it."""


class Block(NamedTuple):
    """A fenced block: its page, its language, the number of its first line, its text."""

    page: str
    language: str
    line: int
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text("utf8")
        for found in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield Block(page.name, found[1], text.count("\n", 0, found.start(2)) + 1, found[2])


BLOCKS = list(_blocks())


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_language_is_one_that_is_tested_or_shows_no_code():
    assert {block.language for block in BLOCKS} <= {"sh", "python", "pycon", "yaml", "", "markdown", "{toctree}"}


@cache
def program() -> TyperGroup:
    """The command line, built once."""
    return get_command(app)


def call(words: list[str]) -> None:
    """Read a command line as the program does, up to where the command would begin."""
    command, context = program(), Context(program(), info_name="fundus-seg")
    while isinstance(command, TyperGroup):
        _, command, words = command.resolve_command(context, words)
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("block", of("sh", ""), ids=str)
def test_each_command_line_is_one_that_the_program_takes(block):
    for line in block.text.replace("\\\n", " ").splitlines():
        match shlex.split(line, comments=True) if line.startswith(("fundus-seg ", "make ", "pip ")) else []:
            case ["fundus-seg", *words]:
                call(words)
            case ["make", *targets]:
                makefile = (ROOT / "Makefile").read_text("utf8")
                assert [target for target in targets if f"\n{target}:" not in makefile] == []
            case ["pip", "install", *packages]:
                setup = ConfigParser()
                setup.read(ROOT / "setup.cfg", "utf8")
                extras = re.findall(r"\[(.*?)\]", " ".join(packages))
                assert [extra for extra in extras if extra not in setup["options.extras_require"]] == []


def test_a_line_that_the_program_refuses_is_found():
    for line in (
        "predict starter photos --out masks --overlai",
        "trian --holdout A",
        "data prepair",
        "predict starter",
    ):
        with pytest.raises(Exception, match=r"(?i)no such|missing"):
            call(line.split())


@pytest.fixture
def workplace(tmp_path, monkeypatch, checkpoint):
    """A folder with the files that the Python of the pages names."""
    monkeypatch.chdir(tmp_path)
    best = Path("runs/paper/A/tvconv/seed-0/checkpoints/best.ckpt")
    best.parent.mkdir(parents=True)
    checkpoint.rename(best)
    Path("OUT").mkdir()
    with Path("OUT/manifest.csv").open("w", newline="") as file:
        row = {"name": "V0001"} | as_row(crop_at((80, 90), (40, 40), (64, 64)))
        rows = csv.DictWriter(file, row)
        rows.writeheader()
        rows.writerow(row)
    Path("masks").mkdir()
    Image.fromarray(np.full((64, 64), 128, np.uint8)).save("masks/V0001.png")
    return {"photograph": np.zeros((90, 80, 3), np.uint8)}


@pytest.mark.parametrize("block", [each for each in of("python") if each.page not in TESTED_ELSEWHERE], ids=str)
def test_python_runs(block, workplace):
    with using("portable"):  # no kernel is compiled for one photograph
        exec(compile(block.text, str(block), "exec"), workplace)
    (made,) = [workplace[name] for name in ("disc", "masks") if name in workplace]
    assert made.dtype == bool
    assert made.shape[-2:] == (90, 80)


@pytest.mark.parametrize(("page", "tests"), TESTED_ELSEWHERE.items())
def test_python_that_runs_elsewhere_is_read_there(page, tests):
    assert f'{page}"' in (ROOT / "tests" / tests).read_text("utf8")


@pytest.mark.parametrize("block", of("pycon"), ids=str)
def test_python_prints_what_stands_there(block):
    test = doctest.DocTestParser().get_doctest(block.text, {}, block.page, block.page, block.line)
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files, empty ones, for each domain of the pages' domain files."""
    monkeypatch.chdir(tmp_path)
    eyes = [f"{patient}_{eye}" for patient in range(9) for eye in ("OD", "OS")]
    masks = [f"{reader}-{structure}.png" for reader in ("ann", "bob", "cem") for structure in ("od", "oc")]
    names = [
        *(f"north/{split}/{split}.jpg" for split in ("train", "test")),
        *(f"north/masks/{split}.png" for split in ("train", "test")),
        *(f"south/{eye}/{file}" for eye in eyes for file in ("photo.tif", *masks)),
        *(f"{domain}/{eye}.jpg" for domain in "abc" for eye in eyes),
        *(
            f"{domain}/{folder}/{eye}.png"
            for domain, folder in (("a", "od"), ("b", "masks"), ("c", "od"))
            for eye in eyes
        ),
        f"a/oc/{eyes[0]}.png",
    ]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_a_domain_file_opens_the_files_that_it_describes(block, files):
    whole, key = of("yaml")[0].text, block.text.split(":")[0]
    text = re.sub(f"^{key}:.*\n", block.text, whole, flags=re.MULTILINE) if key[0] == " " else block.text
    Path("domains.yaml").write_text(text, "utf8")
    root = open_root("domains.yaml")
    assert all(root.cases(domain, split) for domain in root.domains for split in ("train", "test"))
