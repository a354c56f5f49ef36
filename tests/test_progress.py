from __future__ import annotations

import io

from rich.console import Console

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
