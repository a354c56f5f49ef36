"""What is left out is said in one line, by one mechanism, and --strict turns it into exit code 3."""

from __future__ import annotations

import pytest
from small_runs import Lines
from typer.main import get_command

from fundus_seg import plugins
from fundus_seg.data.mask_files import pair_masks
from fundus_seg.errors import StrictError, UsageError, printable
from fundus_seg.evaluation.external import external_evaluations, score_masks
from fundus_seg.runs.folder import RunFolder, find_runs, trained_runs
from fundus_seg_cli.main import app
from fundus_seg_cli.options import labels
from fundus_seg_cli.progress import Terminal

LEAVING_OUT = ("train", "evaluate", "benchmark", "compare", "score", "predict")


def test_one_line_with_count_reason_examples_and_fix():
    told = Lines()
    told.left_out("run", "not trained", [])
    told.left_out("run", "not trained", ["a\x1b[2Jb"])
    told.left_out("run", "not trained", "abcde", "train them")
    assert told.lines == [
        r"left out: 1 run, not trained: a\x1b[2Jb",
        "left out: 5 runs, not trained: a, b, c and 2 more; train them",
    ]


def test_strict_ends_with_3_only_if_something_was_left_out(capsys):
    terminal = Terminal()
    terminal.check(strict=True)
    terminal.left_out("run", "not trained", ["a", "b"])
    terminal.check(strict=False)
    with pytest.raises(StrictError, match="2 runs, not trained") as stopped:
        terminal.check(strict=True)
    assert stopped.value.exit_code == 3
    assert capsys.readouterr().err == "left out: 2 runs, not trained: a, b\n"


def test_every_command_that_can_leave_something_out_is_strict_when_asked():
    group = get_command(app)
    data = group.commands["data"].commands
    for command in (*(group.commands[name] for name in LEAVING_OUT), data["check"], data["atlas"]):
        assert "--strict" in [name for option in command.params for name in option.opts], command.name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é 眼 👁 a\u200db", "é 眼 👁 a\u200db"),
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
        ("a\rb\x9bc\nd\te", r"a\rb\x9bc\nd\te"),
        ("\udcff", r"\xff"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text, shown):
    assert printable(text) == shown


def runs_below(root, *names):
    for name in names:
        run = RunFolder(root / name)
        run.write_config({"inputs": {}})
        run.mark("TRAINED")


class TestLinks:
    """Runs are found behind symbolic links, each once."""

    def test_a_linked_run_is_found(self, tmp_path):
        runs_below(tmp_path, "runs/A/seed-0", "other_disk/B/seed-0")
        (tmp_path / "runs" / "B").symlink_to(tmp_path / "other_disk" / "B")
        assert [run.path for run in find_runs([tmp_path / "runs"])] == [
            tmp_path / "runs/A/seed-0",
            tmp_path / "runs/B/seed-0",
        ]

    def test_a_run_that_is_linked_beside_itself_counts_once_by_its_own_name(self, tmp_path):
        runs_below(tmp_path, "runs/z/seed-0")
        (tmp_path / "runs" / "a").symlink_to("z")
        (tmp_path / "runs" / "z" / "seed-1").symlink_to("seed-0")
        assert [run.path for run in find_runs([tmp_path / "runs"])] == [tmp_path / "runs/z/seed-0"]

    def test_links_that_lead_back_end(self, tmp_path):
        runs_below(tmp_path, "runs/A/seed-0")
        (tmp_path / "runs" / "A" / "loop").symlink_to(tmp_path)
        (tmp_path / "runs" / "self").symlink_to("self")
        told = Lines()
        assert len(find_runs([tmp_path / "runs"], progress=told)) == 1
        assert told.lines == [f"left out: 1 link, leading nowhere: {tmp_path}/runs/self"]

    def test_a_link_whose_disk_is_away_is_named(self, tmp_path):
        runs_below(tmp_path, "runs/A/seed-0")
        (tmp_path / "runs" / "B").symlink_to(tmp_path / "away")
        told = Lines()
        trained_runs([tmp_path / "runs"], progress=told)
        assert told.lines == [f"left out: 1 link, leading nowhere: {tmp_path}/runs/B"]

    def test_scores_of_other_tools_too(self, truth, tmp_path):
        score_masks(pair_masks([str(truth)], [str(truth)]), name="tool", out=tmp_path / "elsewhere")
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
        assert len(external_evaluations([tmp_path / "runs", tmp_path / "elsewhere"])) == 1


def test_failed_and_unfinished_runs_are_told_apart(tmp_path):
    runs_below(tmp_path, "done")
    for name in ("failed", "started"):
        RunFolder(tmp_path / name).write_config({"inputs": {}})
    RunFolder(tmp_path / "failed").mark("FAILED", "no memory")
    told = Lines()
    assert [run.path.name for run in trained_runs([tmp_path], progress=told)] == ["done"]
    assert [line.partition(": ")[2].partition(";")[0] for line in told.lines] == [
        f"1 run, failed: {tmp_path}/failed",
        f"1 run, not trained to the end: {tmp_path}/started",
    ]


def test_a_table_says_what_it_leaves_out_and_strict_ends_with_3(draw_root, command, truth, tmp_path):
    root = draw_root()
    arguments = ("--data", root, "--config", "tiny", "--set", "train.epochs=1")
    command("train", "--holdout", "A", *arguments)
    linked = command("train", "--holdout", "B", "--out", "disk", *arguments).out.strip()
    (tmp_path / "runs/tiny/B").symlink_to((tmp_path / linked).parents[1])
    RunFolder(tmp_path / "runs/tiny/C/tvconv/seed-0").write_config({"inputs": {}})
    shown = command("evaluate", "--strict", "--format", "markdown", code=3)
    line = "left out: 1 run, not trained to the end: runs/tiny/C/tvconv/seed-0;"
    assert line in shown.err
    assert f"- {line}" in shown.out
    assert "| DSC [%] | disc (OD) | B |" in shown.out
    assert shown.err.splitlines()[-1].startswith("error: --strict, and something was left out: 1 run, not trained")
    command("evaluate", "runs/tiny/A", "runs/tiny/B", "--strict")
    tidy = command("evaluate", "--format", "csv", "--label", "tvconv=TV").out
    assert f"# {line}" in tidy
    assert "# TV: tvconv" in tidy
    run = next((tmp_path / "runs/tiny/A").glob("*/seed-0"))
    (run / "evaluations").rename(tmp_path / "gone")
    compared = command("compare", "--to", "tvconv2022", "--format", "markdown")
    assert f"left out: 1 run, without scores of best by this protocol: {run.relative_to(tmp_path)}" in compared.err


def test_a_run_of_code_that_is_not_trusted_does_not_stop_the_others(draw_root, command, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_ops.py").write_text(
        "from torch import nn\ndef block(i, o, rate, settings): return nn.Conv2d(i, o, 1)\n"
    )
    arguments = ("--data", draw_root(), "--config", "tiny", "--set", "train.epochs=1", "--holdout", "A")
    command("train", "--op", "own_ops:block", *arguments)
    plugins._loaded.clear()
    assert "--trust own_ops:block" in command("evaluate", code=1).err
    command("train", "--op", "conv", *arguments)
    shown = command("evaluate", "--format", "markdown")
    assert "left out: 1 run, of an operator that is code of your own: runs/tiny/A/own_ops.block" in shown.err
    assert "| DSC [%] | disc (OD) | A |" in shown.out


def test_labels_are_checked():
    assert labels(["a-lr=1-x=b"]) == {"a-lr=1-x": "b"}
    for wrong in ("a", "=b", "a="):
        with pytest.raises(UsageError, match="write OLD=NEW"):
            labels([wrong])


def test_a_phantom_that_no_run_can_select_on_is_said(command):
    assert (
        "none of the 1 test case of D falls into the half that selects"
        in command("data", "phantom", "small", "--per-domain", 3).err
    )
    assert command("data", "phantom", "large", "--per-domain", 24).err.count("warning") == 0
