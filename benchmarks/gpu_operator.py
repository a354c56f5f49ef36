"""Speed of the operator on this machine's GPU, next to the naive formulation, a depthwise convolution and copies.

    python benchmarks/gpu_operator.py [--part check|time|tiles]

`check` compares the Triton kernels with the equation in float64, in every layout and precision. `time` runs all jobs in
turn, round by round, each with none of its operands in the L2 cache. A rate counts the fewest bytes that the job can
move, with every operand read once and every result written once. It is shown as a share of the rate of a copy of 1 GiB,
and as a share of the rate of a copy of as many bytes, which the launch and the cold cache slow down in the same way.
`tiles` times tiles other than the ones that the backend chooses. Without --part, `check` and `time` run.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.ops import dispatch, translation_variant_conv2d
from fundus_seg.ops.layout import is_channels_last, kernel_in, map_in
from naive import naive_translation_variant_conv2d
from timing import Job, Spread

DEVICE = "cuda"
BATCH, CHANNELS, SIDE, K = 16, 1920, 16, 3
STEP_BATCH = 48
"""Photographs in a step of the preset `paper`."""
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
TIMED_DTYPES = (torch.float32, torch.bfloat16)
MEBI = 2**20
AIM = 0.6
"""Target for each pass, as a share of the rate of a copy."""


def main() -> int:
    """Check, measure, print; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--part", choices=("check", "time", "tiles"), help="run this part alone")
    options.add_argument("--rounds", type=int, default=50, help="how often each job is timed")
    options.add_argument("--processes", type=int, default=4, help="processes that check kernels or compile tiles")
    arguments = options.parse_args()
    if not torch.cuda.is_available():
        print("error: no CUDA device here: run this on a machine with an NVIDIA GPU.", file=sys.stderr)
        return 1
    x = torch.empty(1, device=DEVICE)
    if dispatch.backend(x).__name__ != "fundus_seg.ops.triton_backend":
        print("error: the Triton kernels do not run here: pip install triton, on compute capability 8.0 or newer.",
              file=sys.stderr)  # fmt: skip
        return 1
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    wrong = check_all(arguments.processes) if arguments.part in (None, "check") else 0
    if arguments.part in (None, "time"):
        print(report(arguments.rounds))
    if arguments.part == "tiles":
        print(tiles_report(arguments.rounds, arguments.processes))
    return 1 if wrong else 0


def check_all(processes: int) -> int:
    """Check every geometry, precision and layout, and give the number of wrong ones.

    Several processes share the work, because compiling takes most of the time.
    """
    cases = list(itertools.product(GEOMETRIES, DTYPES, (False, True)))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        faults = [fault for fault in pool.map(fault_of, cases) if fault]
    for fault in faults:
        print(fault)
    cases_text = f"{len(GEOMETRIES)} geometries, {len(DTYPES)} precisions, 2 layouts"
    print(f"summary: equal to the equation in float64: {len(cases) - len(faults)} of {len(cases)} ({cases_text}).")
    if torch.cuda.mem_get_info()[0] > 64 * 1024 * MEBI:
        check_beyond_32_bits()
        print("summary: equal beyond 2^31 elements.")
    return len(faults)


def fault_of(case: tuple[Any, torch.dtype, bool]) -> str | None:
    """A description of what is wrong with one case, or None if nothing is."""
    geometry, dtype, channels_last = case
    torch.manual_seed(0)
    try:
        check(*geometry, dtype=dtype, channels_last=channels_last)
    except (
        Exception
    ) as error:  # whatever the compiler, the driver or the comparison raises, the other cases are still checked
        return f"WRONG {geometry}, {dtype}, channels last {channels_last}: {type(error).__name__}: {str(error)[:600]}"
    finally:
        torch.use_deterministic_algorithms(False)
    return None


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
    x = torch.randn(batch, channels, *size, device=DEVICE, dtype=dtype)
    weight = torch.randn(channels, k * k, *size_out, device=DEVICE, dtype=dtype)
    grad = torch.randn(batch, channels, *size_out, device=DEVICE, dtype=dtype)
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
    large = torch.empty(1024 * MEBI, dtype=torch.uint8, device=DEVICE)
    jobs["copy of 1 GiB"], moved["copy of 1 GiB"] = copy_of(2 * large.nbytes), 2 * large.nbytes
    # The least that the clock can measure: the launch of a kernel that has nothing to do.
    one = torch.zeros(1, device=DEVICE)
    jobs["fill of one number"], moved["fill of one number"] = one.zero_, one.nbytes
    ours = []
    for dtype, channels_last in itertools.product(TIMED_DTYPES, (False, True)):
        case = f"{str(dtype).removeprefix('torch.')}, {'channels last' if channels_last else 'contiguous'}"
        x, weight, grad = operands(BATCH, CHANNELS, (SIDE, SIDE), K, 1, dtype, channels_last)
        shared = torch.randn(CHANNELS, 1, K, K, device=DEVICE, dtype=dtype)
        for name, job in passes(x, weight, grad).items():
            ours.append(f"Triton, {case}, {name}")
            jobs[ours[-1]], moved[ours[-1]] = job, bytes_of(x, weight)
        functions: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
            "Triton": (translation_variant_conv2d, weight),
            "depthwise `F.conv2d`": (depthwise, shared),
        }
        if not channels_last:
            functions["naive"] = (naive_translation_variant_conv2d, weight)
        for name, (function, kernel) in functions.items():
            both = f"{name}, {case}, forward + backward"
            if name != "Triton":
                only = f"{name}, {case}, forward"
                jobs[only], moved[only] = forward(function, x, kernel), bytes_of(x, kernel)
            jobs[both], moved[both] = forward_backward(function, x, kernel, grad), 3 * bytes_of(x, kernel)
    for channels_last in (False, True):
        x, weight, grad = operands(STEP_BATCH, CHANNELS, (SIDE, SIDE), K, 1, torch.bfloat16, channels_last)
        layout = "channels last" if channels_last else "contiguous"
        for name, job in passes(x, weight, grad).items():
            ours.append(f"Triton, bfloat16, {layout}, batch {STEP_BATCH}, {name}")
            jobs[ours[-1]], moved[ours[-1]] = job, bytes_of(x, weight)
    alike = {count: f"copy that moves {count / 1e6:.0f} MB" for count in {moved[name] for name in ours}}
    for count, name in sorted(alike.items()):
        jobs[name], moved[name] = copy_of(count), count
    times, late = side_by_side(jobs, rounds)
    copied = moved["copy of 1 GiB"] / times["copy of 1 GiB"].median
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton_version()}, "
        f"x ({BATCH}, {CHANNELS}, {SIDE}, {SIDE}), k {K}; median (quartiles) of {rounds} rounds.",
        f"A copy of 1 GiB moves {copied / 1e6:.2f} TB/s, read and written. {late} of {rounds * len(jobs)} measurements "
        "began before the host had queued the whole job, and include its delay.",
        "",
        "| job | µs | TB/s | of the copy of 1 GiB | of a copy of as many bytes |",
        "|---|---:|---:|---:|---:|",
    ]
    shares = {}
    for name, time in times.items():
        rate = moved[name] / time.median
        same = ""
        if name in ours:
            shares[name] = times[alike[moved[name]]].median / time.median
            same = f"{shares[name]:.0%}"
        lines.append(f"| {name} | {time} | {rate / 1e6:.2f} | {rate / copied:.0%} | {same} |")
    worst, best = min(ours, key=shares.__getitem__), max(ours, key=shares.__getitem__)
    large_shares = {name: moved[name] / times[name].median / copied for name in ours}
    reached = [name for name in ours if large_shares[name] >= AIM]
    lines += [
        "",
        f"summary: {len(reached)} of {len(ours)} passes move {AIM:.0%} or more of what the copy of 1 GiB moves.",
        f"summary: of a copy of as many bytes: worst {shares[worst]:.0%} ({worst}), best {shares[best]:.0%} ({best}).",
    ]
    return "\n".join(lines)


def bytes_of(x: Tensor, weight: Tensor) -> int:
    """The fewest bytes that a pass can move: it reads two of the two maps and the kernel, and writes the third."""
    return 2 * x.nbytes + weight.nbytes


def copy_of(moved: int) -> Job:
    """A copy that reads and writes this many bytes in total."""
    source = torch.empty(moved // 2, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def passes(x: Tensor, weight: Tensor, grad: Tensor) -> dict[str, Job]:
    """The forward pass and the two gradients, each as a separate job."""
    size = x.shape[2:]
    return {
        "forward": lambda: dispatch.forward(x, weight, K, 1, 1),
        "gradient of x": lambda: dispatch.grad_x(grad, weight, size, K, 1, 1),
        "gradient of the weight": lambda: dispatch.grad_weight(grad, x, K, 1, 1),
    }


@dataclass(frozen=True)
class Tile:
    """A tile to use instead of the backend's own.

    Attributes:
        channels: of the block of lanes.
        rows: of the block.
        cols: columns of the block.
        images: how many images a program computes at once.
        warps: of a program.
        vector: neighbouring lanes that belong to one thread.
    """

    channels: int
    rows: int
    cols: int
    images: int
    warps: int
    vector: int

    def __str__(self) -> str:
        block = f"{self.channels} x {self.rows} x {self.cols}"
        return f"{block}, {self.images} images, {self.warps} warps, {self.vector} lanes at once"


def tiles(dtype: torch.dtype, channels_last: bool) -> list[Tile]:
    """Tiles to try for the geometry that is timed."""
    every = []
    if not channels_last:
        for (channels, rows), vector in itertools.product(((1, 8), (1, 16), (2, 16)), (1, 2)):
            lanes = channels * rows * SIDE
            for images, each in itertools.product((2, 4, 8), (1, 2)):  # `each`: lanes of a thread
                if each >= vector:
                    every.append(Tile(channels, rows, SIDE, images, max(1, lanes // (32 * each)), vector))
        return [tile for tile in every if tile.warps <= 8]
    line = 128 // dtype.itemsize
    for vector in {4, 16 // dtype.itemsize}:
        for channels, rows, cols in ((line, 4, 4), (line, 2, 4), (2 * line, 1, 4), (2 * line, 2, 4), (line, 2, 2)):
            warps = max(1, channels * rows * cols // (32 * vector))
            every += [Tile(channels, rows, cols, images, warps, vector) for images in (2, 4, 8, 16)]
    return every


@contextmanager
def tiled(tile: Tile | None) -> Iterator[None]:
    """Within it, the backend uses this tile; None stands for its own."""
    from fundus_seg.ops import triton_backend

    def tiling(x: Tensor, images: int, *operands: Tensor) -> tuple[tuple[int], dict[str, Any]]:
        assert tile is not None
        _, own = original(x, images, *operands)
        blocks = {"BLOCK_B": tile.images, "BLOCK_C": tile.channels, "BLOCK_ROWS": tile.rows, "BLOCK_COLS": tile.cols}
        blocks["VECTOR"] = tile.vector
        counts = zip(x.shape[1:], (tile.channels, tile.rows, tile.cols), strict=True)
        programs = 1
        for n, block in counts:
            programs *= -(-n // block)
        return (programs,), {**own, **blocks, "num_warps": tile.warps}

    original = triton_backend._tiling
    if tile is None:
        yield
        return
    with patch.object(triton_backend, "_tiling", tiling):
        yield


def tiles_report(rounds: int, processes: int) -> str:
    """Table with the backend's own tile and the fastest other ones, for each pass, precision and layout."""
    batches = ((BATCH, torch.float32), (BATCH, torch.bfloat16), (STEP_BATCH, torch.bfloat16))
    cases = [(*case, channels_last) for case in batches for channels_last in (False, True)]
    wanted = list(dict.fromkeys((dtype, last, tile) for _, dtype, last in cases for tile in tiles(dtype, last)))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        compiles = {work for work, well in zip(wanted, pool.map(compile_tile, wanted), strict=True) if well}
    lines = ["| batch | case | pass | tile (channels x rows x columns) | µs | of its own tile's time |"]
    lines += ["|---:|---|---|---|---:|---:|"]
    for batch, dtype, channels_last in cases:
        x, weight, grad = operands(batch, CHANNELS, (SIDE, SIDE), K, 1, dtype, channels_last)
        assert is_channels_last(x) == channels_last
        choices = [None, *(tile for tile in tiles(dtype, channels_last) if (dtype, channels_last, tile) in compiles)]
        jobs: dict[tuple[str, Tile | None], Job] = {}
        for name, job in passes(x, weight, grad).items():
            for tile in choices:
                jobs[name, tile] = with_tile(tile, job)
        times, _ = side_by_side(jobs, rounds)
        case = f"{str(dtype).removeprefix('torch.')}, {'channels last' if channels_last else 'contiguous'}"
        for name in passes(x, weight, grad):
            own = times[name, None].median
            ranked = sorted(choices, key=lambda tile: times[name, tile].median)
            for tile in [None, *[tile for tile in ranked if tile is not None][:6]]:
                time = times[name, tile]
                lines.append(f"| {batch} | {case} | {name} | {tile or 'its own'} | {time} | {time.median / own:.2f} |")
    return "\n".join(lines)


def with_tile(tile: Tile | None, job: Job) -> Job:
    def tiled_job() -> None:
        with tiled(tile):
            job()

    return tiled_job


def compile_tile(work: tuple[torch.dtype, bool, Tile]) -> bool:
    """Compile the three passes with this tile; give whether their results equal those of the backend's own tile.

    Other processes find the compiled passes in Triton's cache.
    """
    dtype, channels_last, tile = work
    torch.manual_seed(0)
    try:
        every = passes(*operands(STEP_BATCH, CHANNELS, (SIDE, SIDE), K, 1, dtype, channels_last))
        for job in every.values():
            with tiled(tile):
                result = job()
            torch.testing.assert_close(result, job(), rtol=torch.finfo(dtype).eps, atol=1e-4)
    except Exception as error:  # for example too many registers: such a tile cannot be chosen
        print(f"{dtype}, channels last {channels_last}, {tile}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return False
    return True


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


def side_by_side(jobs: Mapping[Any, Job], rounds: int, warm_up: int = 3) -> tuple[dict[Any, Spread], int]:
    """Microseconds of each job on the device, and the number of jobs that began before the host had queued them.

    Every job runs once in each round.
    """
    # The buffer is far larger than any L2 cache. It is read, not written, because the cache would write its lines back
    # during the job.
    flush = torch.zeros(512 * MEBI, device=DEVICE)
    events: dict[Any, list[tuple[Any, Any]]] = {name: [] for name in jobs}
    late = 0
    for number in range(-warm_up, rounds):
        for name, job in jobs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            for _ in range(3):  # this takes long enough for the host to queue the job
                flush.sum()
            start.record()
            job()
            end.record()
            began = start.query()
            torch.cuda.synchronize()
            if number >= 0:
                events[name].append((start, end))
                late += began
    times = {name: Spread.of([1e3 * a.elapsed_time(b) for a, b in pairs]) for name, pairs in events.items()}
    return times, late


def triton_version() -> str:
    import triton

    return str(triton.__version__)


if __name__ == "__main__":
    sys.exit(main())
