"""The command line as a user meets it: a real process, its exit code, its last line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fundus_seg.builtins import OPERATORS

COMMAND = [str(Path(sys.executable).with_name("fundus-seg"))]


def call(*arguments, cwd, code=0):
    done = subprocess.run([*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def test_help_names_the_commands(tmp_path):
    shown = call("--help", cwd=tmp_path).stdout
    commands = ("train", "evaluate", "benchmark", "compare", "score", "audit", "predict", "profile", "data")
    assert all(command in shown for command in commands)


def test_help_names_every_operator(tmp_path):
    shown = call("train", "--help", cwd=tmp_path).stdout
    assert [op for op in OPERATORS if op not in shown] == []


def test_help_imports_nothing_heavy(tmp_path):
    program = (
        "import sys; from fundus_seg_cli import main; "
        "print([m for m in ('torch', 'numpy', 'pandas', 'cv2', 'pydantic', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_data_names_the_three_ways_in_one_line(tmp_path):
    done = call("train", "--holdout", "A", "--op", "tvconv", cwd=tmp_path, code=1)
    assert done.stderr.startswith("error: no photographs")
    assert done.stderr.count("\n") == 1
    assert all(way in done.stderr for way in ("--data ROOT", "$FUNDUS_SEG_DATA", "--data phantom"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--op", "tvcnov", "--holdout", "A"], 2, "did you mean 'tvconv'?"),
        (["train", "--op", "depthwise_dilated", "--holdout", "A"], 2, "did you mean 'depthwise-dilated'?"),
        (["train", "--holdout", "E"], 2, "unknown domain 'E'"),
        (["benchmark", "--ops", "conv,tvcnov"], 2, "did you mean 'tvconv'?"),
        (["benchmark", "--vary", "optim.lrr=1,2"], 2, "did you mean 'optim.lr'?"),
        (["train"], 2, "no holdout"),
        (["train", "--holdut", "A"], 2, "--holdout"),
        (["train", "--holdout", "A", "--config", "demmo"], 2, "did you mean 'demo'?"),
        (["train", "--holdout", "A", "--set", "optim.lrr=1"], 2, "did you mean 'optim.lr'?"),
        (["train", "--holdout", "A", "--config", "tiny", "--out", "file/runs"], 1, "cannot be written"),
        (["evaluate", "nowhere"], 1, "nowhere: no such folder"),
        (["evaluate", "--checkpoint", "bset"], 2, "best"),
        (["evaluate", "--inference", "nativ"], 2, "native"),
        (["evaluate", "--metrics", "dcs"], 2, "did you mean 'dsc'?"),
        (["compare", "nowhere"], 1, "nowhere: no such folder"),
        (["compare", "--to", "tvconv22"], 2, "did you mean 'tvconv2022'?"),
        (["compare", "--to", "tvconv2022", "--ops", "conv,tvconv"], 2, "leave one option out"),
        (["train", "--holdout", "A", "--set", "preset=tiny"], 2, "--config"),
        (["train", "--holdout", "A", "--set", "holdout=B"], 2, "--set: holdout=B with --holdout A: give it once"),
        (["config", "papr"], 2, "did you mean 'paper'?"),
        (["evaluate", "--scoring", "papr"], 2, "did you mean 'paper'?"),
        (["data", "phantom", "out", "--per-domain", "1"], 2, "at least 3 cases"),
        (["data", "check", "nowhere"], 1, "nowhere: no such folder"),
        (["data", "cache"], 2, "either --list or --clear"),
    ],
)
def test_wrong_arguments(draw_root, tmp_path, arguments, code, message):
    if arguments[0] in ("train", "benchmark"):
        arguments = [*arguments, "--data", draw_root()]
    (tmp_path / "file").touch()
    done = call(*arguments, cwd=tmp_path, code=code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_train_evaluate_predict(draw_root, tmp_path):
    root = draw_root()
    common = ["--data", root, "--config", "tiny"]
    run = call("train", "--holdout", "A", *common, cwd=tmp_path).stdout.strip()
    assert (tmp_path / run / "TRAINED").is_file()
    again = call("train", "--holdout", "A", *common, cwd=tmp_path)
    assert again.stdout.strip() == run
    assert "already trained" in again.stderr
    shown = call("evaluate", "--overlays", 2, "--plots", "plots", cwd=tmp_path)
    assert "DSC [%]" in shown.stdout
    assert len(list((tmp_path / run / "overlays").rglob("*.png"))) == 2
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"boxes-dsc.png", "boxes-dsc.svg", "bland-altman-vcdr.svg", "learning-curves.svg"} <= plots
    markdown = call("evaluate", run, "--format", "markdown", "--metrics", "dsc,asd", cwd=tmp_path).stdout
    assert "| DSC [%] | disc (OD) | A |" in markdown
    assert "ASD" in markdown
    probe = call("evaluate", run, "--inference", "native", "--scoring", "released-code", cwd=tmp_path)
    assert "each photograph seen at its own size" in probe.stdout
    photographs = root / "Domain1/test/ROIs/image"
    call("predict", run, photographs, "--out", "masks", "--overlay", cwd=tmp_path)
    assert len(list((tmp_path / "masks/masks").glob("*.png"))) == 4
    assert len(list((tmp_path / "masks/overlays").glob("*.png"))) == 4


def test_compare(draw_root, tmp_path):
    draw_root("data/Fundus")
    call("train", "--config", "tiny", "--holdout", "A", "--op", "conv", "--set", "train.epochs=1", cwd=tmp_path)
    unscored = call("compare", "--to", "tvconv2022", cwd=tmp_path, code=1).stderr
    assert unscored.splitlines()[-1].endswith("run `fundus-seg evaluate` on it")
    call("evaluate", cwd=tmp_path)
    published = call("compare", "--to", "tvconv2022", "--format", "markdown", cwd=tmp_path).stdout
    assert "| DSC [%] | cup | A | conv | " in published
    assert "CVPR 2022, Table 1" in published
    one = call("compare", cwd=tmp_path, code=2).stderr
    assert "two operators are compared: name them with --ops, of conv" in one
    call("train", "--config", "tiny", "--holdout", "A", "--op", "tvconv", "--set", "train.epochs=1", cwd=tmp_path)
    call("evaluate", cwd=tmp_path)
    two = call("compare", "--metric", "hd95", "--format", "markdown", cwd=tmp_path).stdout
    assert "selection: source-validation" in two
    assert "| all | all |" in two
    assert "penalised, 0 excluded of 4" in two
    data = pd.read_csv(io.StringIO(call("compare", "--format", "csv", cwd=tmp_path).stdout), comment="#")
    assert data["difference"].tolist() == pytest.approx((data["first_mean"] - data["second_mean"]).tolist(), abs=1e-3)


def test_phantom_command(tmp_path):
    done = call("data", "phantom", "out", "--per-domain", 3, cwd=tmp_path)
    assert done.stdout.strip() == "out"
    assert len(list((tmp_path / "out").rglob("image/*.png"))) == 12


def test_cache_command(tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path))
    (tmp_path / "phantom-v1").mkdir()
    shown = call("data", "cache", "--list", cwd=tmp_path).stdout.splitlines()
    assert shown[0].endswith(f"the phantom: {tmp_path / 'phantom-v1'}")
    assert "1 items" in shown[-1]
    assert "cleared" in call("data", "cache", "--clear", cwd=tmp_path).stdout
    assert not list(tmp_path.iterdir())
