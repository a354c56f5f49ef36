"""The command line as a user meets it: what it prints, its exit codes, what it imports before it answers."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command

from fundus_seg.builtins import OPERATORS
from fundus_seg_cli.main import app
from fundus_seg_cli.options import names, paragraphs

COMMANDS = (
    "train",
    "evaluate",
    "benchmark",
    "compare",
    "score",
    "config",
    "audit",
    "predict",
    "profile",
    "calibrate",
    "export",
)
DATA_COMMANDS = ("phantom", "check", "atlas", "cache")


def process(*arguments, cwd):
    """The command in a process of its own."""
    program = Path(sys.executable).with_name("fundus-seg")
    return subprocess.run([program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


class TestProcess:
    def test_results_go_to_standard_output(self, tmp_path):
        done = process("data", "phantom", "out", "--per-domain", 3, cwd=tmp_path)
        assert (done.returncode, done.stdout.strip()) == (0, "out"), done.stderr
        assert len(list((tmp_path / "out").rglob("image/*.png"))) == 12

    def test_an_error_is_one_line_and_an_exit_code(self, tmp_path):
        done = process("compare", "nowhere", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"error: nowhere: no such folder; .*\n", done.stderr)


IMPORTS = """
import sys
from fundus_seg_cli.main import main

for line in sys.argv[2:]:
    sys.argv = ["fundus-seg", *line.split()]
    try:
        main()
    except SystemExit as ended:
        loaded = [name for name in HEAVY if name in sys.modules]
        print(f"{line}: exit {ended.code}", *loaded, sep="|", file=sys.__stderr__)
"""


def imports(lines, heavy, cwd):
    """For each line of arguments, called one after the other in one process: its exit code, the heavy modules there."""
    program = f"HEAVY = {heavy!r}\n{IMPORTS}"
    done = subprocess.run([sys.executable, "-c", program, "-", *lines], cwd=cwd, capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if ": exit " in line]
    assert len(told) == len(lines), done.stderr
    return [re.fullmatch(r".*: exit (\w+)(.*)", line).groups() for line in told]


class TestImports:
    def test_help_imports_nothing_heavy(self, tmp_path):
        lines = [f"{name} --help" for name in COMMANDS] + [f"data {name} --help" for name in DATA_COMMANDS]
        heavy = ["torch", "lightning", "numpy", "pandas", "scipy", "cv2", "yaml"]  # pydantic is typer's own import
        assert imports(["--help", *lines], heavy, tmp_path) == [("0", "")] * (len(lines) + 1)

    def test_arguments_are_checked_before_torch_is_imported(self, draw_root, tmp_path):
        draw_root("data/Fundus")
        (tmp_path / "masks").mkdir()
        (tmp_path / "photograph.png").touch()
        lines = {
            "train": 2,
            "train --holdout A --op tvcnov": 2,
            "train --holdout E": 2,
            "train --holdout A --track tensorbord": 2,
            "evaluate nowhere": 1,
            "evaluate --metrics dcs": 2,
            "evaluate --scoring papre": 2,
            "evaluate --trust nothing": 2,
            "benchmark --ops tvcnov": 2,
            "benchmark --holdouts A,E": 2,
            "benchmark --vary optim.lrr=1,2": 2,
            "benchmark --runs 1 --holdouts A --ops conv --config tiny --dry-run --executor serial": 0,
            "calibrate nowhere": 1,
            "compare nowhere": 1,
            "compare --metric dcs": 2,
            "compare --to tvconv22": 2,
            "predict nowhere photograph.png --out masks": 1,
            "predict photograph.png nowhere --out masks": 1,
            "predict photograph.png photograph.png --views mirror --out masks": 2,
            "profile --ops x": 2,
            "profile --op conv": 2,
            "data atlas root --plot x": 2,
            "score --pred masks --truth masks --metrics dcs": 2,
            "score --pred masks --truth masks --pred-coding x": 2,
            "score --pred nowhere --truth masks": 1,
            "audit --pred masks": 2,
            "data check nowhere": 1,
            "data atlas nowhere": 1,
            "data cache": 2,
        }
        found = imports(lines, ["torch", "lightning", "segmentation_models_pytorch"], tmp_path)
        assert dict(zip(lines, found, strict=True)) == {line: (str(code), "") for line, code in lines.items()}

    @pytest.mark.parametrize(
        "options",
        [
            ("train", "--holdout", "E"),
            ("train", "--holdout", "A", "--set", "data.sources=[A, B]"),
            ("train", "--holdout", "A", "--set", "train.augment=nowhere:factory"),
            ("benchmark", "--holdouts", "E"),
            ("benchmark", "--ops", "tvcnov"),
        ],
    )
    def test_arguments_are_checked_before_the_phantom_is_drawn(self, command, monkeypatch, tmp_path, options):
        monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "cache"))
        command(*options, "--data", "phantom", code=2)
        assert not (tmp_path / "cache").exists()


class TestHelp:
    def test_the_commands_are_listed(self, command):
        shown = command("--help").out
        assert all(name in shown for name in (*COMMANDS, "data"))

    def test_every_operator_is_listed(self, command):
        shown = command("train", "--help").out
        assert [op for op in OPERATORS if op not in shown] == []

    def test_every_command_and_option_is_described_by_a_sentence(self):
        group = get_command(app)
        commands = [*group.commands.values(), *group.commands["data"].commands.values()]
        for each in commands:
            texts = [each.help, *(option.help for option in each.params if option.name != "help")]
            assert all((text and text[0].isupper()) or text.startswith(("png:", "resize:")) for text in texts), (
                each.name
            )
            assert all(text.rstrip().endswith((".", ")")) for text in texts), each.name

    def test_paragraphs_are_not_broken_where_the_source_is(self):
        assert paragraphs("One\n    sentence.\n\n    Another\n    one.\n") == "One sentence.\n\nAnother one."


class TestArguments:
    def test_names_are_separated_by_commas(self):
        assert names("conv, tvconv") == ["conv", "tvconv"]
        assert names("conv,") == ["conv", ""]  # which no table of names holds, so that it is refused

    def test_no_data_names_the_three_ways_in_one_line(self, command, tmp_path):
        told = command("train", "--holdout", "A", "--op", "tvconv", code=1).err
        assert told.startswith("error: no photographs")
        assert told.count("\n") == 1
        assert all(way in told for way in ("--data ROOT", "$FUNDUS_SEG_DATA", "--data phantom"))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["train", "--op", "tvcnov", "--holdout", "A"], 2, "did you mean 'tvconv'?"),
            (["train", "--op", "depthwise_dilated", "--holdout", "A"], 2, "did you mean 'depthwise-dilated'?"),
            (["train", "--holdout", "E"], 2, "unknown domain 'E'"),
            (["train", "--holdout", "A", "--track", "tensorbord"], 2, "did you mean 'tensorboard'?"),
            (["benchmark", "--ops", "conv,tvcnov"], 2, "did you mean 'tvconv'?"),
            (["benchmark", "--vary", "optim.lrr=1,2"], 2, "did you mean 'optim.lr'?"),
            (["benchmark", "--executor", "proceses"], 2, "processes"),
            (["train"], 2, "no holdout"),
            (["train", "--holdut", "A"], 2, "--holdout"),
            (["train", "--holdout", "A", "--config", "demmo"], 2, "did you mean 'demo'?"),
            (["train", "--holdout", "A", "--set", "optim.lrr=1"], 2, "did you mean 'optim.lr'?"),
            (["train", "--holdout", "A", "--config", "tiny", "--out", "file/runs"], 1, "cannot be written"),
            (["evaluate", "nowhere"], 1, "nowhere: no such folder"),
            (["evaluate", "--checkpoint", "bset"], 2, "best"),
            (["evaluate", "--inference", "nativ"], 2, "native"),
            (["evaluate", "--metrics", "dcs"], 2, "did you mean 'dsc'?"),
            (["evaluate", "--all-selections", "--checkpoint", "best"], 2, "leave one of the two out"),
            (["evaluate", "--scoring", "papre"], 2, "did you mean 'paper'?"),
            (["compare", "nowhere"], 1, "nowhere: no such folder"),
            (["compare", "--metric", "dcs"], 2, "did you mean 'dsc'?"),
            (["compare", "--to", "tvconv22"], 2, "did you mean 'tvconv2022'?"),
            (["compare", "--to", "tvconv2022", "--ops", "conv,tvconv"], 2, "leave one option out"),
            (["predict", "nowhere", "file", "--out", "masks"], 1, "nowhere: no such run or checkpoint"),
            (["predict", "file", "nowhere", "--out", "masks"], 1, "nowhere: no such photograph or folder"),
            (["train", "--holdout", "A", "--set", "preset=tiny"], 2, "--config"),
            (["train", "--holdout", "A", "--set", "holdout=B"], 2, "holdout=B with --holdout A: give it once"),
            (["config", "papr"], 2, "did you mean 'paper'?"),
            (["data", "phantom", "out", "--per-domain", "1"], 2, "at least 3 cases"),
            (["data", "check", "nowhere"], 1, "nowhere: no such folder"),
            (["data", "cache"], 2, "either --list or --clear"),
        ],
    )
    def test_wrong_arguments(self, draw_root, command, tmp_path, arguments, code, message):
        if arguments[0] in ("train", "benchmark"):
            arguments = [*arguments, "--data", draw_root()]
        (tmp_path / "file").touch()
        told = command(*arguments, code=code).err
        assert message in told
        assert "Traceback" not in told
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("arguments", "old", "new"),
        [
            (["evaluate", "--selection", "all"], "--selection", "--all-selections"),
            (["evaluate", "--selection=all"], "--selection", "--all-selections"),
            (["evaluate", "--op", "separable:block"], "--op", "--trust"),
            (["predict", "run", "photographs", "--out", "masks", "--op", "separable:block"], "--op", "--trust"),
        ],
    )
    def test_former_spellings_are_refused_by_name(self, command, arguments, old, new):
        told = command(*arguments, code=2).err
        assert told == f"error: fundus-seg {arguments[0]}: {old} is now called {new}\n"
        assert not re.search(rf"{old}\b(?!-)", command(arguments[0], "--help").out)


def test_train_evaluate_predict(draw_root, command, tmp_path):
    root = draw_root()
    run = command("train", "--holdout", "A", "--data", root, "--config", "tiny").out.strip()
    assert (tmp_path / run / "TRAINED").is_file()
    again = command("train", "--holdout", "A", "--data", root, "--config", "tiny")
    assert again.out.strip() == run
    assert "already trained" in again.err
    shown = command("evaluate", "--overlays", 2, "--plots", "plots").out
    assert "DSC [%]" in shown
    assert len(list((tmp_path / run / "overlays").rglob("*.jpg"))) == 2
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"boxes-dsc.png", "boxes-dsc.svg", "bland-altman-vcdr.svg", "learning-curves.svg"} <= plots
    markdown = command("evaluate", run, "--format", "markdown", "--metrics", "dsc,asd").out
    assert "| DSC [%] | disc (OD) | A |" in markdown
    assert "ASD" in markdown
    probe = command("evaluate", run, "--inference", "native", "--scoring", "released-code").out
    assert "each photograph seen at its own size" in probe
    photographs = root / "Domain1/test/ROIs/image"
    command("predict", run, photographs, "--out", "masks", "--overlay", "--roi", "full")
    assert len(list((tmp_path / "masks/masks").glob("*.png"))) == 4
    assert len(list((tmp_path / "masks/overlays").glob("*.jpg"))) == 4


def test_compare(draw_root, command):
    draw_root("data/Fundus")
    command("train", "--config", "tiny", "--holdout", "A", "--op", "conv", "--set", "train.epochs=1")
    unscored = command("compare", "--to", "tvconv2022", code=1).err
    assert unscored.splitlines()[-1].endswith("run `fundus-seg evaluate` on it")
    command("evaluate")
    published = command("compare", "--to", "tvconv2022", "--format", "markdown").out
    assert "| DSC [%] | cup | A | conv | " in published
    assert "CVPR 2022, Table 1" in published
    one = command("compare", code=2).err
    assert "two operators are compared: name them with --ops, of conv" in one
    command("train", "--config", "tiny", "--holdout", "A", "--op", "tvconv", "--set", "train.epochs=1")
    command("evaluate")
    two = command("compare", "--metric", "hd95", "--format", "markdown").out
    assert "selection: source-validation" in two
    assert "| all | all |" in two
    assert "penalised, 0 excluded of 4" in two
    data = pd.read_csv(io.StringIO(command("compare", "--format", "csv").out), comment="#")
    rows = json.loads(command("compare", "--format", "json").out)["rows"]
    assert [row["difference"] for row in rows] == pytest.approx(data["difference"].tolist(), rel=1e-5)
    assert data["difference"].tolist() == pytest.approx((data["first_mean"] - data["second_mean"]).tolist(), abs=1e-3)


def test_cache_command(command, tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path))
    (tmp_path / "phantom-v1").mkdir()
    shown = command("data", "cache", "--list").out.splitlines()
    assert shown[0].endswith(f"the phantom: {tmp_path / 'phantom-v1'}")
    assert "1 item," in shown[-1]
    assert "cleared" in command("data", "cache", "--clear").out
    assert not list(tmp_path.iterdir())
