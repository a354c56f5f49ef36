"""The documentation site: what it holds, its navigation, and what stands beside it for a release."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from types import FunctionType

import pytest
import yaml

from fundus_seg.reporting import card

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("made_reference")


def test_every_page_stands_in_the_navigation():
    toctrees = re.findall(
        r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text("utf8"), re.MULTILINE | re.DOTALL
    )
    entries = [line for text in toctrees for line in text.splitlines() if not line.startswith(":")]
    named = {re.sub(r".*<(.*)>", r"\1", entry) for entry in entries}
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} == {name for name in named if "/" not in name}


class TestReference:
    def test_every_command_has_a_page_with_its_options(self, reference):
        pages = reference.pages()
        assert "`--holdout <str>`" in pages[Path("commands/train.md")]
        assert "## `fundus-seg data prepare`" in pages[Path("commands/data.md")]
        assert "`--per-domain" in pages[Path("commands/data.md")]

    def test_every_package_that_says_what_it_offers_has_a_page(self, reference):
        public = reference.public_packages()
        assert {"fundus_seg", "fundus_seg.ops", "fundus_seg.data", "fundus_seg.viz"} <= set(public)
        assert "fundus_seg.trust" not in public

    def test_pages_of_a_former_build_go_away(self, reference, tmp_path, monkeypatch):
        monkeypatch.setattr(reference, "REFERENCE", tmp_path / "reference")
        (tmp_path / "reference/commands").mkdir(parents=True)
        (tmp_path / "reference/commands/gone.md").touch()
        reference.write()
        written = {path.relative_to(tmp_path / "reference") for path in tmp_path.rglob("*.md")}
        assert written == set(reference.pages())


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path, reference):
    """With every public name on its page, and pages that can be searched."""
    pytest.importorskip("sphinx", reason="`make docs` sets it up")
    site = tmp_path / "site"
    folders = ["--conf-dir", DOCS, "--doctree-dir", tmp_path / "trees", ROOT, site]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", *folders], capture_output=True, text=True
    )
    assert (built.returncode, built.stderr) == (0, "")
    for name in reference.public_packages():
        page = (site / f"docs/reference/api/{name}.html").read_text("utf8")
        package = importlib.import_module(name)
        offered = [each for each in package.__all__ if isinstance(getattr(package, each), type | FunctionType)]
        assert [each for each in offered if f'id="{name}.{each}"' not in page] == []
    index = json.loads((site / "searchindex.js").read_text("utf8").removeprefix("Search.setIndex(").removesuffix(")"))
    assert {"docs/faq", "docs/reference/commands/predict", "benchmarks/gpu"} <= set(index["docnames"])
    assert "hausdorff" in index["terms"]
    assert "url=docs/index.html" in (site / "index.html").read_text("utf8")


class TestRelease:
    def test_the_citation_is_of_this_version_and_names_the_paper(self):
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg", "utf8")
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
        assert citation["version"] == setup["metadata"]["version"]
        assert citation["license"] == setup["metadata"]["license"]
        (paper,) = citation["references"]
        assert paper["title"] in (ROOT / "README.md").read_text("utf8").replace("\n", " ")
        assert (len(paper["authors"]), paper["authors"][0]["family-names"], paper["year"]) == (6, "Chen", 2022)

    def test_what_is_computed_of_a_card_is_what_the_page_says(self):
        headings = re.findall(r'"## (.*?)"', Path(card.__file__).read_text("utf8"))
        page = (DOCS / "model_card.md").read_text("utf8")
        template = re.search(r"^```markdown\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
        assert headings == ["What trained it", "What is known of unseen cameras", "In-domain"]
        assert not set(headings) & set(re.findall(r"^## (.*)$", template, re.MULTILINE))

    @pytest.mark.parametrize("path", sorted(ROOT.joinpath(".github").rglob("*.yml")), ids=lambda path: path.name)
    def test_what_is_asked_and_run_elsewhere_can_be_read(self, path):
        content = yaml.safe_load(path.read_text("utf8"))
        if path.parent.name == "workflows":
            commands = [step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step]
            targets = {word for line in commands if line.startswith("make ") for word in line.split()[1:]}
            assert all(f"\n{target}:" in (ROOT / "Makefile").read_text("utf8") for target in targets)
            systems = content["jobs"]["tests"]["strategy"]["matrix"]["system"]
            assert [name.split("-")[0] for name in systems] == ["ubuntu", "macos", "windows"]
        else:
            assert "body" in content or "blank_issues_enabled" in content
