"""The decoupled filter of DDF on this machine's GPU: the Triton kernels beside the passes of plain torch.

    python benchmarks/gpu_ddf.py

First the output and its three gradients are compared with plain torch in float64, in every layout and precision, and
computed a second time, which must give the same bits. Then both ways are timed in turn, round by round, with none of
the operands in the L2 cache. The rate counts the fewest bytes that a pass can move, every map read or written once, as
a share of the rate of a copy of 1 GiB. Exit code 1: a result is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import Tensor

from fundus_seg.ops import dispatch
from fundus_seg.ops.compared.ddf import decoupled_filter, decoupled_filter_backward
from fundus_seg.ops.layout import map_in
from gpu_operator import DEVICE, MEBI, copy_of, side_by_side, triton_version
from timing import Job

# batch, channels, size, k; the last is that of the ASPP at the size of the paper, which is timed.
GEOMETRIES = [
    (1, 1, (1, 1), 1),
    (3, 70, (1, 1), 3),
    (1, 7, (1, 9), 3),
    (5, 19, (17, 3), 5),
    (3, 67, (13, 21), 3),
    (2, 16, (112, 112), 3),
    (16, 1920, (16, 16), 3),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TIMED_DTYPES = (torch.float32, torch.bfloat16)


def main() -> int:
    """Check, measure, print; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=50, help="how often each job is timed")
    options.add_argument("--processes", type=int, default=4, help="processes that compile and check")
    arguments = options.parse_args()
    if not torch.cuda.is_available() or not dispatch.has_triton(torch.empty(1, device=DEVICE)):
        print("error: the Triton kernels do not run here: use an NVIDIA GPU of compute capability 8.0 or newer, with "
              "pip install triton.", file=sys.stderr)  # fmt: skip
        return 1
    cases = list(itertools.product(GEOMETRIES, DTYPES, (False, True)))
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn")) as pool:
        faults = [fault for fault in pool.map(fault_of, cases) if fault]
    for fault in faults:
        print(fault)
    print(f"summary: ddf: {len(cases) - len(faults)} of {len(cases)} cases equal plain torch in float64.")
    print(report(arguments.rounds))
    return 1 if faults else 0


def fault_of(case: tuple[Any, torch.dtype, bool]) -> str | None:
    """A description of what is wrong with one case, or None if nothing is."""
    try:
        check(*case)
    except Exception as error:  # whatever the compiler, the driver or the comparison raises
        return f"WRONG {case}: {type(error).__name__}: {str(error)[:600]}"
    return None


def check(geometry: tuple[int, int, tuple[int, int], int], dtype: torch.dtype, channels_last: bool) -> None:
    """The output and the three gradients: rounded once, and the same bits twice."""
    given = operands(*geometry, dtype, channels_last)
    with dispatch.using("portable"):
        expected = both_passes(*(each.double() for each in given), k=geometry[3])
    results, again = (both_passes(*given, k=geometry[3]) for _ in range(2))
    # The longest sum is that of a filter's gradient: over all channels, or over all positions.
    longest = max(given[1].shape[1], given[1].shape[2] * given[1].shape[3])
    sums = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for result, value, same in zip(results, expected, again, strict=True):
        assert result.dtype == dtype
        bounds = {"rtol": torch.finfo(dtype).eps, "atol": 20 * longest**0.5 * sums + 100 * sums}
        torch.testing.assert_close(result.double(), value, **bounds)
        torch.testing.assert_close(result, same, rtol=0, atol=0)


def operands(
    batch: int, channels: int, size: tuple[int, int], k: int, dtype: torch.dtype, channels_last: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A gradient of the output, x, spatial and channel; spatial has its taps innermost, as the module makes it."""
    torch.manual_seed(0)
    grad, x = (torch.randn(batch, channels, *size, device=DEVICE, dtype=dtype) for _ in range(2))
    spatial = torch.randn(batch, *size, k * k, device=DEVICE, dtype=dtype).permute(0, 3, 1, 2)
    channel = torch.randn(batch, channels, k * k, device=DEVICE, dtype=dtype)
    return map_in(grad, channels_last), map_in(x, channels_last), spatial, channel


def both_passes(grad: Tensor, x: Tensor, spatial: Tensor, channel: Tensor, k: int) -> tuple[Tensor, ...]:
    """The output, and the gradients of x, spatial and channel."""
    out = decoupled_filter(x, spatial, channel, k, 1, 1)
    return out, *decoupled_filter_backward(grad, x, spatial, channel, k, 1, 1)


def report(rounds: int) -> str:
    """The table, with the machine above it."""
    batch, channels, size, k = GEOMETRIES[-1]
    jobs: dict[Any, Job] = {"copy": copy_of(2048 * MEBI)}
    moved: dict[Any, int] = {"copy": 2048 * MEBI}
    for dtype, channels_last in itertools.product(TIMED_DTYPES, (False, True)):
        grad, x, spatial, channel = operands(batch, channels, size, k, dtype, channels_last)
        passes: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], int]] = {
            "forward": (decoupled_filter, (x, spatial, channel), 2),
            "backward": (decoupled_filter_backward, (grad, x, spatial, channel), 3),
        }
        case = f"{str(dtype).removeprefix('torch.')}, {'channels last' if channels_last else 'contiguous'}"
        for name, (function, given, maps) in passes.items():
            for plain in (False, True):
                key = case, name, plain
                jobs[key], moved[key] = job_of(function, given, k, plain), maps * x.nbytes
    times, late = side_by_side(jobs, rounds)
    copied = moved["copy"] / times["copy"].median
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton_version()}, "
        f"x ({batch}, {channels}, {size[0]}, {size[1]}), k {k}; median (quartiles) of {rounds} rounds.",
        f"A copy of 1 GiB moves {copied / 1e6:.2f} TB/s. {late} of {rounds * len(jobs)} measurements include the "
        "host's delay.",
        "",
        "| pass | plain torch [µs] | Triton [µs] | times as fast | of the copy's rate |",
        "|---|---:|---:|---:|---:|",
    ]
    ratios = {}
    for case, name, plain in (key for key in jobs if key != "copy"):
        if not plain:
            ours, theirs = times[case, name, False], times[case, name, True]
            ratios[f"{case}, {name}"] = theirs.median / ours.median
            share = moved[case, name, False] / ours.median / copied
            lines.append(f"| {case}, {name} | {theirs} | {ours} | {theirs.median / ours.median:.1f} | {share:.0%} |")
    worst, best = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    lines += [
        "",
        f"summary: ddf: Triton is {ratios[worst]:.1f} ({worst}) to {ratios[best]:.1f} ({best}) times as fast as plain.",
    ]
    return "\n".join(lines)


def job_of(function: Callable[..., Any], given: tuple[Tensor, ...], k: int, plain: bool) -> Job:
    def job() -> None:
        function(*given, k, 1, 1)

    def plain_job() -> None:
        with dispatch.using("portable"):
            job()

    return plain_job if plain else job


if __name__ == "__main__":
    sys.exit(main())
