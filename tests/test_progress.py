from __future__ import annotations

import io

from rich.console import Console

from fundus_seg_cli import progress
from fundus_seg_cli.progress import Terminal


class Loss:
    """Counts how often somebody asks for its value, which on a GPU waits for the device."""

    def __init__(self) -> None:
        self.asked = 0

    def __float__(self) -> float:
        self.asked += 1
        return 0.5


def test_values_are_asked_for_when_the_bar_is_drawn_not_in_every_step() -> None:
    terminal, loss = Terminal(), Loss()
    terminal.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with terminal.task("epoch 1/1", total=10_000) as advance:
        for _ in range(10_000):
            advance(loss=loss)
    assert 0 < loss.asked < 5_000
    assert "loss 0.500" in terminal.console.file.getvalue()  # type: ignore[attr-defined]


def test_a_pipe_hears_of_the_first_task_and_of_long_ones(capsys, monkeypatch) -> None:
    terminal = Terminal()
    with terminal.task("epoch 1/2", total=3) as advance:
        advance(loss=1.0)
        monkeypatch.setattr(progress, "SILENCE", 0.0)
        advance(loss=1.0)
        advance(loss=1.0)
    with terminal.task("epoch 2/2", total=3):
        pass
    assert capsys.readouterr().err == "epoch 1/2: 3 to do\nepoch 1/2: 2 of 3\n"


def test_what_holds_for_many_runs_is_said_once(capsys) -> None:
    terminal = Terminal()
    for _ in range(3):
        terminal.line("warning: stray pixels")
        terminal.left_out("photograph", "without a mask", ["a", "b"])
    terminal.left_out("photograph", "without a mask", ["c"])
    assert capsys.readouterr().err.splitlines() == [
        "warning: stray pixels",
        "left out: 2 photographs, without a mask: a, b",
        "left out: 1 photograph, without a mask: c",
    ]
    assert len(terminal.told) == 2
