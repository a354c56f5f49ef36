"""Speed of the operator on this machine's GPU, next to the naive formulation, a depthwise convolution and a copy.

    python benchmarks/gpu_operator.py

First the Triton kernels are checked against the equation in float64, in every layout and precision. Then all jobs are
timed in turn, round by round, each with none of its operands in the L2 cache. A rate counts the fewest bytes that the
job can move, with every operand read once and every result written once; it is shown as a share of a copy's rate.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.ops import dispatch, translation_variant_conv2d
from fundus_seg.ops.layout import kernel_in, map_in
from naive import naive_translation_variant_conv2d
from timing import Job, Spread

BATCH, CHANNELS, SIDE, K = 16, 1920, 16, 3
# batch, channels, size, k, stride, dilation
GEOMETRIES = [
    (1, 1, (1, 1), 1, 1, 1),
    (1, 7, (1, 9), 3, 1, 1),
    (5, 19, (17, 3), 5, 2, 1),
    (3, 33, (13, 21), 3, 3, 2),
    (9, 70, (6, 6), 5, 1, 6),
    (33, 64, (32, 48), 3, 1, 1),
    (16, 96, (64, 64), 3, 2, 1),
    (BATCH, CHANNELS, (SIDE, SIDE), K, 1, 1),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
MEBI = 2**20


def main() -> int:
    """Check, measure, print; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=50, help="how often each job is timed")
    rounds = options.parse_args().rounds
    if not torch.cuda.is_available():
        print("error: no CUDA device here: run this on a machine with an NVIDIA GPU.", file=sys.stderr)
        return 1
    x = torch.empty(1, device="cuda")
    if dispatch.backend(x).__name__ != "fundus_seg.ops.triton_backend":
        print("error: the Triton kernels do not run here: pip install triton, on compute capability 8.0 or newer.",
              file=sys.stderr)  # fmt: skip
        return 1
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    for geometry, dtype, channels_last in itertools.product(GEOMETRIES, DTYPES, (False, True)):
        check(*geometry, dtype=dtype, channels_last=channels_last)
    print(f"Equal to the equation in float64: {len(GEOMETRIES)} geometries, {len(DTYPES)} precisions, 2 layouts.")
    if torch.cuda.mem_get_info()[0] > 64 * 1024 * MEBI:
        check_beyond_32_bits()
        print("Equal beyond 2^31 elements.")
    print(report(rounds))
    return 0


def operands(
    batch: int,
    channels: int,
    size: tuple[int, int],
    k: int,
    stride: int,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and a gradient of the output, in the layout."""
    size_out = [(n - 1) // stride + 1 for n in size]
    x = torch.randn(batch, channels, *size, device="cuda", dtype=dtype)
    weight = torch.randn(channels, k * k, *size_out, device="cuda", dtype=dtype)
    grad = torch.randn(batch, channels, *size_out, device="cuda", dtype=dtype)
    return map_in(x, channels_last), kernel_in(weight, channels_last), map_in(grad, channels_last)


def check(
    batch: int,
    channels: int,
    size: tuple[int, int],
    k: int,
    stride: int,
    dilation: int,
    dtype: torch.dtype,
    channels_last: bool,
) -> None:
    """The output and both gradients: rounded once, every element written, the same bits twice."""
    x, weight, grad = operands(batch, channels, size, k, stride, dtype, channels_last)
    exact_x, exact_weight = (tensor.double().contiguous().requires_grad_() for tensor in (x, weight))
    exact = naive_translation_variant_conv2d(exact_x, exact_weight, stride=stride, dilation=dilation)
    expected = exact, *torch.autograd.grad(exact, (exact_x, exact_weight), grad.double())
    sums = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns with NaN
    results, again = (
        (
            dispatch.forward(x, weight, k, stride, dilation),
            dispatch.grad_x(grad, weight, size, k, stride, dilation),
            dispatch.grad_weight(grad, x, k, stride, dilation),
        )
        for _ in range(2)
    )
    torch.use_deterministic_algorithms(False)
    for result, value, same in zip(results, expected, again, strict=True):
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), value, rtol=torch.finfo(dtype).eps / 2, atol=500 * sums.eps)
        torch.testing.assert_close(result, same, rtol=0, atol=0)


def check_beyond_32_bits() -> None:
    """The last image of a batch and the last channel of a kernel, whose offsets no 32-bit index reaches."""
    for channels_last in (False, True):
        x, weight, grad = operands(5, 512, (1024, 1024), 3, 1, torch.bfloat16, channels_last)
        alone, last = map_in(x[-1:, -16:], channels_last), kernel_in(weight[-16:], channels_last)
        grad_alone = map_in(grad[-1:, -16:], channels_last)
        pairs = [
            (dispatch.forward(x, weight, 3, 1, 1), dispatch.forward(alone, last, 3, 1, 1)),
            (
                dispatch.grad_x(grad, weight, (1024, 1024), 3, 1, 1),
                dispatch.grad_x(grad_alone, last, (1024, 1024), 3, 1, 1),
            ),
        ]
        for whole, part in pairs:
            torch.testing.assert_close(whole[-1:, -16:], part)
        del pairs, weight
        maps = map_in(x[:, -16:], channels_last), map_in(grad[:, -16:], channels_last)
        torch.testing.assert_close(
            dispatch.grad_weight(grad, x, 3, 1, 1)[-16:], dispatch.grad_weight(maps[1], maps[0], 3, 1, 1)
        )


def report(rounds: int) -> str:
    """The table, with the machine above it."""
    jobs: dict[str, Job] = {}
    moved: dict[str, int] = {}
    large = torch.empty(1024 * MEBI, dtype=torch.uint8, device="cuda")
    jobs["copy"], moved["copy"] = large.clone, 2 * large.nbytes
    for dtype, channels_last in itertools.product((torch.float32, torch.bfloat16), (False, True)):
        case = f"{str(dtype).removeprefix('torch.')}, {'channels last' if channels_last else 'contiguous'}"
        x, weight, grad = operands(BATCH, CHANNELS, (SIDE, SIDE), K, 1, dtype, channels_last)
        shared = torch.randn(CHANNELS, 1, K, K, device="cuda", dtype=dtype)
        functions: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
            "Triton": (translation_variant_conv2d, weight),
            "depthwise `F.conv2d`": (depthwise, shared),
        }
        if not channels_last:
            functions["naive"] = (naive_translation_variant_conv2d, weight)
        for name, (function, kernel) in functions.items():
            once = 2 * x.nbytes + kernel.nbytes  # forward and each gradient: two operands read, one written
            both = f"{name}, {case}, forward + backward"
            jobs[f"{name}, {case}, forward"], moved[f"{name}, {case}, forward"] = forward(function, x, kernel), once
            jobs[both], moved[both] = forward_backward(function, x, kernel, grad), 3 * once
    times = side_by_side(jobs, rounds)
    copied = moved["copy"] / times["copy"].median
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton_version()}, "
        f"x ({BATCH}, {CHANNELS}, {SIDE}, {SIDE}), k {K}; median (quartiles) of {rounds} rounds.",
        f"A copy of {large.nbytes // MEBI} MiB moves {copied / 1e6:.2f} TB/s.",
        "",
        "| job | µs | TB/s | of a copy |",
        "|---|---|---|---|",
    ]
    for name, time in times.items():
        rate = moved[name] / time.median
        lines.append(f"| {name} | {time} | {rate / 1e6:.2f} | {rate / copied:.0%} |")
    return "\n".join(lines)


def depthwise(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=K // 2, groups=CHANNELS)


def forward(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Job:
    def job() -> None:
        with torch.no_grad():
            function(x, weight)

    return job


def forward_backward(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, grad: Tensor) -> Job:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()

    def job() -> None:
        torch.autograd.grad(function(x, weight), (x, weight), grad)

    return job


def side_by_side(jobs: Mapping[str, Job], rounds: int, warm_up: int = 5) -> dict[str, Spread]:
    """Microseconds of each job on the device, all jobs once in every round."""
    # Far beyond any L2 cache, and long enough that a job's launches are all queued before it starts.
    flush = torch.empty(2048 * MEBI, dtype=torch.uint8, device="cuda")
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in jobs}
    for number in range(-warm_up, rounds):
        for name, job in jobs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            start.record()
            job()
            end.record()
            torch.cuda.synchronize()
            if number >= 0:
                events[name].append((start, end))
    return {name: Spread.of([1e3 * start.elapsed_time(end) for start, end in pairs]) for name, pairs in events.items()}


def triton_version() -> str:
    import triton

    return str(triton.__version__)


if __name__ == "__main__":
    sys.exit(main())
