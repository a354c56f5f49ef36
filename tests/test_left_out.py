"""What is left out is said in one line, by one mechanism, and --strict turns it into exit code 3."""

from __future__ import annotations

import pytest
from small_runs import Lines
from typer.main import get_command

from fundus_seg.errors import StrictError, printable
from fundus_seg_cli.main import app
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
