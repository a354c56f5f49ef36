"""`fundus-seg config`: every setting, who gives its value, and the page that is made of them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fundus_seg.config import RunConfig, load_config, preset_names
from fundus_seg.config.describe import compare, describe, markdown_page
from fundus_seg.config.fields import flatten
from fundus_seg.errors import UsageError
from fundus_seg_cli.main import app

RECORD = Path(__file__).with_name("config-0.1.0.yaml")


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: tiny\noptim:\n  lr: 1e-4\n")
    return str(file)


def printed(*arguments):
    done = CliRunner().invoke(app, ["config", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


class TestDescribe:
    @pytest.mark.parametrize("preset", preset_names())
    def test_every_setting_has_its_value_of_the_preset(self, preset):
        values = {each.setting: each.value for each in describe(preset, overrides=["holdout=A", "seed=3"])}
        config = load_config(preset, arguments={"holdout": "A", "seed": 3})
        assert values == flatten(config.model_dump(mode="json"))

    def test_every_setting_has_help_and_says_what_it_may_be(self):
        for each in describe():
            assert each.help.endswith("."), each
            assert each.allowed, each

    def test_every_value_says_who_gives_it(self, mine):
        sources = {each.setting: each.source for each in describe(mine, overrides=["train.epochs=3"])}
        assert sources["preset"] == f"file {mine}:1"
        assert sources["optim.lr"] == f"file {mine}:3"
        assert (sources["data.size"], sources["optim.betas"]) == ("preset tiny", "default")
        assert sources["train.epochs"] == "--set"
        assert sources["holdout"] == "not given"

    def test_a_run_gives_all_of_its_own(self, tmp_path):
        run = tmp_path / "seed-0"
        run.mkdir()
        (run / "config.yaml").write_bytes(RECORD.read_bytes())
        for path in (run, RECORD):
            assert {each.source for each in describe(str(path))} == {"the run's record"}

    def test_bounds_and_choices_are_those_of_the_types(self):
        allowed = {each.setting: each.allowed for each in describe()}
        assert allowed["preset"] == "demo, paper, released-code, starter, strong, tiny"
        assert allowed["data.size"] == "integer >= 32 and a multiple of 16"
        assert allowed["data.sources"] == "list of texts, or null"
        assert allowed["optim.betas"] == "[number >= 0 and < 1, number >= 0 and < 1]"
        assert allowed["train.precision"] == "fp32, bf16, or null"
        assert allowed["train.loss"] == "bce, bce-dice, package.module:factory"

    def test_faults_are_refused_as_elsewhere(self):
        with pytest.raises(UsageError, match=r"did you mean 'optim\.lr'"):
            describe("tiny", overrides=["optim.lrr=1"])
        with pytest.raises(UsageError, match="a method sees whole batches"):
            describe("tiny", overrides=["train.devices=2", "train.method=vrex"])


def test_differences_are_of_values_alone(mine):
    assert compare(describe("paper"), describe("paper", overrides=["optim.lr=1e-3"])) == []
    assert [(each.setting, each.value, each.other) for each in compare(describe(mine), describe("tiny"))] == [
        ("optim.lr", 1e-4, 1e-3)
    ]


class TestCommand:
    def test_json_and_csv_hold_the_settings(self, mine):
        rows = json.loads(printed(mine, "--format", "json"))
        assert {row["setting"]: row["value"] for row in rows}["optim.betas"] == [0.9, 0.99]
        table = list(csv.DictReader(io.StringIO(printed(mine, "--format", "csv"))))
        assert [row["setting"] for row in table] == [row["setting"] for row in rows]
        assert {row["setting"]: row["value"] for row in table}["optim.lr"] == "0.0001"

    def test_the_table_names_every_setting(self, mine):
        shown = printed(mine, "--set", "train.epochs=3")
        assert all(name in shown for name in flatten(RunConfig(holdout="A").model_dump()))

    def test_diff_shows_what_differs_alone(self, mine):
        (row,) = json.loads(printed(mine, "--diff", "tiny", "--format", "json"))
        assert (row["setting"], row["value"], row["other"], row["other_source"]) == ("optim.lr", 1e-4, 1e-3, "default")
        assert "optim.lr" in printed(mine, "--diff", "tiny", "--format", "markdown")
        assert printed("paper", "--diff", "paper") == "no setting differs\n"

    def test_the_page_in_docs_is_what_it_prints(self):
        """`make docs` writes it anew."""
        page = Path(__file__).parents[1].joinpath("docs", "settings.md").read_text("utf8")
        assert printed("--format", "markdown") == page == markdown_page(describe()) + "\n"

    def test_it_needs_no_torch(self):
        program = (
            "import sys; from fundus_seg.config.describe import describe; describe(); "
            "print([m for m in ('torch', 'numpy', 'pandas', 'lightning') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
