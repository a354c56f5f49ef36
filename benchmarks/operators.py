"""Time and memory of the operators that the paper compares, next to their authors' formulations in plain torch.

    .venv/bin/python benchmarks/operators.py --threads 1    # where other work shares the machine

Every operator stands where TVConv stands by default: 1920 channels on a map of 16x16. Both sides have the same
parameters and give the same result, which `tests/test_benchmarks.py` checks. One thread is measured in CPU time, more
threads in wall time. The table is written to `operators.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import Tensor, nn

from fundus_seg.hardware import machine
from fundus_seg.ops import compared
from fundus_seg.profiling import peak_memory
from plain_operators import PLAIN
from timing import side_by_side

CHANNELS, PROJECTED, SIDE = 1920, 256, 16
OPERATORS: dict[str, Callable[[int], nn.Module]] = {
    "condconv": compared.CondConv2d,
    "weightnet": compared.WeightNet2d,
    "dyconv-dw": compared.DYConvDepthwise2d,
    "dyconv-pw": partial(compared.DYConvPointwise2d, out_channels=PROJECTED),
    "involution": compared.Involution2d,
    "ddf": compared.DDF2d,
    "sasa": compared.SASA2d,
    "axial": partial(compared.AxialAttention2d, size=(SIDE, SIDE)),
}


def main() -> None:
    """Measure, print the table and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("operators.md"))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--channels", type=int, default=CHANNELS)
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that torch uses")
    options.add_argument("--ops", default=",".join(OPERATORS), help="operators, separated by commas")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    names = arguments.ops.split(",")
    text = page([row(name, arguments.batch, arguments.channels, arguments.rounds) for name in names], arguments)
    print(text)
    arguments.out.write_text(text, "utf8")


def row(name: str, batch: int, channels: int, rounds: int) -> str:
    """One line of the table: forward and backward of an operator, contiguous and channels last, and of its rival."""
    torch.manual_seed(0)
    operator = OPERATORS[name](channels)
    x = torch.randn(batch, channels, SIDE, SIDE)
    plain = partial(PLAIN[name], operator)
    jobs = {
        "ours": step(operator, operator, x),
        "channels last": step(operator, operator, x.contiguous(memory_format=torch.channels_last)),
        "plain": step(operator, plain, x),
    }
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    time = side_by_side(jobs, rounds=rounds, clock=clock)
    memory = {job: peak_memory(run) / x.nbytes for job, run in jobs.items()}
    cells = (
        name,
        time.milliseconds("plain"),
        time.milliseconds("ours"),
        time.ratio("ours", to="plain"),
        time.ratio("channels last", to="plain"),
        *(f"{memory[job]:.1f}" for job in ("plain", "ours", "channels last")),
    )
    return f"| {' | '.join(map(str, cells))} |"


def step(operator: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward and backward, for the gradients of the input and of every parameter."""
    x = x.detach().requires_grad_()
    parameters = [x, *operator.parameters()]

    def run() -> None:
        torch.autograd.grad(forward(x).sum(), parameters)

    return run


def page(rows: list[str], arguments: argparse.Namespace) -> str:
    """The text of the page: the machine, and the table."""
    lines = [
        "# The operators that the paper compares, on the CPU",
        "",
        f"{machine()}. {'CPU' if arguments.threads == 1 else 'Wall'} time, the median of {arguments.rounds} rounds, "
        "with the quartiles in brackets.",
        "",
        f"Forward and backward of a map ({arguments.batch},{arguments.channels},{SIDE},{SIDE}) in float32, for the "
        "gradients of the map and of every parameter.",
        "`plain` is the authors' formulation in plain torch (`plain_operators.py`), on a contiguous map. Ratios are",
        "ours / plain, below 1 where ours is faster. Memory is the peak of forward and backward beyond map and",
        "parameters, as a multiple of the map.",
        "",
        "| operator | plain [ms] | ours [ms] | ours / plain | channels last / plain | memory: plain | ours | "
        "channels last |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
        "",
        "MLP-Mixer has no row: its layers are torch's own, and its plain formulation is ours.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
