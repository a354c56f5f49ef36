"""What TVConv's two extensions cost beside plain TVConv: time, memory and MACs.

    .venv/bin/python benchmarks/extensions.py --threads 1    # where other work shares the machine

The operator stands where it stands by default: 1920 channels on a map of 16x16. One thread is measured in CPU time,
more threads in wall time. The table is written to `extensions.md`.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import Tensor, nn

from fundus_seg.hardware import machine
from fundus_seg.models.operators import BranchSettings, tvconv
from fundus_seg.profiling import count_macs, peak_memory
from operators import CHANNELS, SIDE, step
from timing import side_by_side

WORDS = {"plain": (), **{word: (word,) for word in ("dynamic-bias", "spatial-transformer")}}
"""Parts of `model.ablation`, by the name of their row."""


class Widened(nn.Module):
    """An operator that is fed with photographs (B, 3, H, W), whose mean it sees in every channel, to count its MACs."""

    def __init__(self, operator: nn.Module, channels: int) -> None:
        super().__init__()
        self.operator, self.channels = operator, channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, 3, H, W) to (B, C, H, W)."""
        out: Tensor = self.operator(x.mean(dim=1, keepdim=True).expand(-1, self.channels, -1, -1))
        return out


def main() -> None:
    """Measure, print the table and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("extensions.md"))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--channels", type=int, default=CHANNELS)
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that torch uses")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    text = page(rows(arguments.batch, arguments.channels, arguments.rounds), arguments)
    print(text)
    arguments.out.write_text(text, "utf8")


def rows(batch: int, channels: int, rounds: int) -> list[str]:
    """A line of the table for plain TVConv and for each extension."""
    settings = partial(BranchSettings, (SIDE, SIDE), 6, 64)
    operators = {name: tvconv(settings(words), channels, (SIDE, SIDE)) for name, words in WORDS.items()}
    x = torch.randn(batch, channels, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    training = {name: step(each, each, x) for name, each in operators.items()}
    memory = {name: peak_memory(run) / x.nbytes for name, run in training.items()}
    trained = side_by_side(training, rounds=rounds, clock=clock)
    with torch.inference_mode():
        inferring = {name: partial(each.eval(), x) for name, each in operators.items()}
        inferred = side_by_side(inferring, rounds=rounds, clock=clock)
    lines = []
    for name, each in operators.items():
        macs = count_macs(Widened(each, channels), SIDE)
        cells = (
            name,
            trained.milliseconds(name),
            trained.ratio(name, to="plain"),
            inferred.milliseconds(name),
            inferred.ratio(name, to="plain"),
            f"{memory[name]:.1f}",
            f"{macs.image / 1e6:,.1f}",
            f"{macs.generation / 1e6:,.1f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def page(lines: list[str], arguments: argparse.Namespace) -> str:
    """The text of the page: the machine, and the table."""
    return "\n".join(
        [
            "# TVConv's extensions, on the CPU",
            "",
            f"{machine()}. {'CPU' if arguments.threads == 1 else 'Wall'} time, the median of {arguments.rounds} "
            "rounds, with the quartiles in brackets; all rows in one process, in turn.",
            "",
            f"One operator on a map ({arguments.batch},{arguments.channels},{SIDE},{SIDE}) in float32, channels last. "
            "`training` is forward and backward,",
            "for the gradients of the map and of every parameter; `inference` a pass in evaluation mode, in which",
            "plain TVConv has its kernels cached. Memory is the peak of training beyond map and parameters, as a",
            "multiple of the map. MACs are those of each photograph, and of the kernels that are generated once for",
            "all of them.",
            "",
            "| TVConv | training [ms] | / plain | inference [ms] | / plain | memory | MACs a photograph [M] | "
            "MACs once [M] |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            *lines,
            "",
            "The spatial transformer generates kernels for every photograph, at inference too: that is its cost.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
