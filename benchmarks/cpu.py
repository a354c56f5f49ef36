"""Speed and memory of TVConv on this machine's CPU, next to the naive formulation and a depthwise convolution.

    make bench
    .venv/bin/python benchmarks/cpu.py --threads 1 --batch 8    # where other work shares the machine

All jobs run in this one process. One thread is measured in CPU time, which other work on the machine changes little,
and more threads in wall time. The table is written to `cpu.md`, with the targets and whether they were reached.
"""

from __future__ import annotations

import argparse
import copy
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.errors import counted
from fundus_seg.hardware import machine
from fundus_seg.models import bake, build_model
from fundus_seg.ops import dispatch, native, portable, translation_variant_conv2d
from fundus_seg.ops.layout import kernel_in, map_in
from fundus_seg.profiling import peak_memory
from fundus_seg.runs.provenance import processor
from fundus_seg.training.task import binary_cross_entropy
from naive import naive_network, naive_translation_variant_conv2d
from timing import Job, Spread, side_by_side

BATCH, CHANNELS, SIDE, TAPS = 16, 1920, 16, 9
IMAGE = 256


def where(level: str | None = None) -> str:
    """The processor, the level of instructions (the one that computes, by default) and the threads of a measurement."""
    return f"{processor()}, {level or native.level()}, {counted(torch.get_num_threads(), 'thread')}"


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio, and its target."""

    what: str
    against: str
    ratio: Spread
    reach: float | None = None
    faster: bool = True
    """Whether the ratio is a speed-up, to be at least `reach`, or a cost, to be at most `reach`."""
    on: str = field(default_factory=where)

    def __str__(self) -> str:
        if self.reach is None:
            return f"| {self.what} | {self.against} | {self.ratio} | | | {self.on} |"
        sign = ">=" if self.faster else "<="
        held = self.ratio.median >= self.reach if self.faster else self.ratio.median <= self.reach
        reached = f"{sign} {self.reach} | {'yes' if held else 'no'}"
        return f"| {self.what} | {self.against} | {self.ratio} | {reached} | {self.on} |"


def main() -> None:
    """Measure, print the table and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("cpu.md"))
    options.add_argument(
        "--rounds", type=int, default=9, help="of the operator; inference takes twice, training a third"
    )
    options.add_argument("--image", type=int, default=IMAGE, help="height and width of photographs")
    options.add_argument("--batch", type=int, default=BATCH, help="photographs in a training step")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that torch uses")
    options.add_argument("--note", default="", help="a sentence for the page, on what else ran on the machine")
    arguments = options.parse_args()
    warnings.filterwarnings("ignore")  # of the compiler that torch.compile brings
    os.environ.pop(native.LEVEL_VARIABLE, None)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    to_copy = passes(arguments.rounds)
    rows, timings = operator(arguments.rounds)
    for more_rows, more_timings in (
        training(max(2, arguments.rounds // 3), arguments.batch, arguments.image),
        inference(2 * arguments.rounds, arguments.image),
    ):
        rows, timings = rows + more_rows, timings | more_timings
    text = report(to_copy, rows, timings, arguments.note)
    print(text)
    arguments.out.write_text(text, "utf8")


def passes(rounds: int) -> list[str]:
    """Each pass of the operator at every level of instructions, against a copy that moves as many bytes.

    All three passes move two maps and one kernel. The copy reads half of these bytes and writes the other half.
    """
    rows = []
    threads_before = torch.get_num_threads()
    for threads in sorted({1, threads_before}):
        torch.set_num_threads(threads)
        for dtype in (torch.float32, torch.bfloat16):
            for last in (False, True):
                x, grad = (map_in(torch.randn(BATCH, CHANNELS, SIDE, SIDE).to(dtype), last) for _ in range(2))
                weight = kernel_in(torch.randn(CHANNELS, TAPS, SIDE, SIDE).to(dtype), last)
                half = torch.zeros((2 * x.numel() + weight.numel()) // 2, dtype=dtype)
                copied = partial(torch.zeros_like(half).copy_, half)
                operands: dict[str, tuple[object, ...]] = {
                    "forward": (x, weight, 3, 1, 1),
                    "grad_x": (grad, weight, (SIDE, SIDE), 3, 1, 1),
                    "grad_weight": (grad, x, 3, 1, 1),
                }
                jobs: dict[str, Job] = {}
                for name, given in operands.items():
                    for level in native.levels():  # each just after its copy, which leaves the caches alike for all
                        jobs[f"copy, {level}: {name}"] = copied
                        jobs[f"{level}: {name}"] = at_level(level, forward(getattr(native, name), *given))
                for name, given in operands.items():
                    jobs[f"torch: {name}"] = forward(getattr(portable, name), *given)
                time = side_by_side(jobs, rounds=rounds, warm_up=2, clock=clock())
                for level in native.levels():
                    cells = []
                    for name in operands:
                        ours = f"{level}: {name}"
                        cells += [
                            str(time.ratio(ours, f"copy, {ours}")),
                            f"{time.ratio(f'torch: {name}', ours).median:.1f}",
                        ]
                    layout = "channels last" if last else "contiguous"
                    rows.append(f"| {where(level)} | {str(dtype)[6:]} | {layout} | {' | '.join(cells)} |")
    torch.set_num_threads(threads_before)
    return rows


def operator(rounds: int) -> tuple[list[Row], dict[str, Spread]]:
    """The operator alone, on the expanded map of the ASPP at 256x256."""
    x, weight = torch.randn(BATCH, CHANNELS, SIDE, SIDE), torch.randn(CHANNELS, TAPS, SIDE, SIDE)
    x_last, weight_last = map_in(x, channels_last=True), kernel_in(weight, channels_last=True)
    shared = torch.randn(CHANNELS, 1, 3, 3)

    def depthwise(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=1, groups=CHANNELS)

    functions: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]] = {
        "naive": (naive_translation_variant_conv2d, x, weight),
        "TVConv": (translation_variant_conv2d, x, weight),
        "TVConv, channels last": (translation_variant_conv2d, x_last, weight_last),
        "TVConv bf16": (translation_variant_conv2d, x.bfloat16(), weight.bfloat16()),
        "TVConv bf16, channels last": (translation_variant_conv2d, x_last.bfloat16(), weight_last.bfloat16()),
        "depthwise": (depthwise, x, shared),
        "depthwise, channels last": (depthwise, x_last, shared),
        "depthwise bf16, channels last": (depthwise, x_last.bfloat16(), shared.bfloat16()),
    }
    if native.unavailable() is None:
        functions["naive, torch.compile"] = (torch.compile(naive_translation_variant_conv2d), x, weight)
    jobs: dict[str, Job] = {"copy of x": x.clone}
    for name, (function, *operands) in functions.items():
        jobs[f"{name}: forward"] = forward(function, *operands)
        jobs[f"{name}: forward + backward"] = forward_backward(function, *operands)
    for name in ("TVConv", "TVConv, channels last"):
        for passes in ("forward", "forward + backward"):
            jobs[f"{name}, torch operations: {passes}"] = on_torch_operations(jobs[f"{name}: {passes}"])
            for level in lower_levels():
                jobs[f"{name}, {level}: {passes}"] = at_level(level, jobs[f"{name}: {passes}"])
    time = side_by_side(jobs, rounds=rounds, warm_up=2, clock=clock())
    memory = {
        name: peak_memory(jobs[f"{name}: forward + backward"]) for name in ("naive", "TVConv", "TVConv, channels last")
    }
    what = f"operator ({BATCH},{CHANNELS},{SIDE},{SIDE}), k 3, fp32"
    both, last = "forward + backward", "channels last"
    rows = [
        Row(f"{what}, forward", "naive", time.ratio("naive: forward", "TVConv: forward"), 15),
        Row(f"{what}, {both}", "naive", time.ratio(f"naive: {both}", f"TVConv: {both}"), 10),
        Row(f"{what}, {both}, {last}", "naive", time.ratio(f"naive: {both}", f"TVConv, {last}: {both}")),
        *(
            Row(
                f"{what}, {passes}, {level}",
                "naive",
                time.ratio(f"naive: {passes}", f"TVConv, {level}: {passes}"),
                reach,
                on=where(level),
            )
            for level in lower_levels()
            for passes, reach in (("forward", 15), (both, 10))
        ),
        Row(
            f"{what}, forward, cached kernel",
            "depthwise `F.conv2d`",
            time.ratio("TVConv: forward", "depthwise: forward"),
            1.5,
            faster=False,
        ),
        Row(
            f"{what}, forward, cached kernel, {last}",
            "depthwise `F.conv2d`",
            time.ratio(f"TVConv, {last}: forward", f"depthwise, {last}: forward"),
            2.5,
            faster=False,
        ),
        *(
            Row(
                f"{what}, tensor memory of {both}{layout}",
                "naive",
                Spread.of([memory[f"TVConv{layout}"] / memory["naive"]] * 2),
                0.25,
                faster=False,
            )
            for layout in ("", f", {last}")
        ),
    ]
    if native.unavailable() is None:
        for passes in ("forward", both):
            for rival in ("TVConv, torch operations", "naive, torch.compile"):
                ratio = time.ratio(f"{rival}: {passes}", f"TVConv: {passes}")
                rows.append(Row(f"{what}, {passes}, C++", rival, ratio))
    return rows, {f"operator: {name}": time.milliseconds(name) for name in jobs}


def training(rounds: int, batch: int, size: int) -> tuple[list[Row], dict[str, Spread]]:
    """Whole training steps: forward, loss, backward, Adam."""
    images = torch.rand(batch, 3, size, size) * 2 - 1
    masks = (torch.rand(batch, 2, size, size) > 0.5).to(torch.uint8)
    plain, best = "fp32, contiguous", "bf16, channels last"
    variants = {
        plain: (torch.float32, torch.contiguous_format),
        "fp32, channels last": (torch.float32, torch.channels_last),
        "bf16, contiguous": (torch.bfloat16, torch.contiguous_format),
        best: (torch.bfloat16, torch.channels_last),
    }
    jobs = {}
    for variant, (dtype, memory_format) in variants.items():
        for op in ("naive", "tvconv", "depthwise"):
            if op != "naive" or variant in (plain, best):
                network = network_of(op, size).to(memory_format=memory_format)
                in_layout = images.contiguous(memory_format=memory_format)
                jobs[f"{op}, {variant}"] = training_step(network, in_layout, masks, dtype)
                if op == "tvconv" and memory_format == torch.channels_last:
                    for level in lower_levels():
                        jobs[f"{op}, {variant}, {level}"] = at_level(level, jobs[f"{op}, {variant}"])
    time = side_by_side(jobs, rounds=rounds, clock=clock())
    what = f"training step, batch {batch}, {size}x{size}"
    rows = []
    for variant in (plain, best):
        ours = f"tvconv, {variant}"
        rows += [
            Row(f"{what}, {ours}", "the same net, naive", time.ratio(f"naive, {variant}", ours), 1.35),
        ]
    for variant in variants:
        for level in native.levels():
            ours = f"tvconv, {variant}" if level == native.level() else f"tvconv, {variant}, {level}"
            if ours in jobs:
                reach = None if "contiguous" in variant else 1.15
                ratio = time.ratio(ours, f"depthwise, {variant}")
                rows.append(Row(f"{what}, {ours}", "depthwise", ratio, reach, faster=False, on=where(level)))
    rows.append(
        Row(f"{what}, tvconv, {best}", f"naive, {plain}", time.ratio(f"naive, {plain}", f"tvconv, {best}"), 2.5)
    )
    return rows, {f"step: {name}": time.milliseconds(name) for name in jobs}


def inference(rounds: int, size: int) -> tuple[list[Row], dict[str, Spread]]:
    """One photograph through the whole network, in evaluation mode."""
    image = torch.rand(1, 3, size, size) * 2 - 1
    networks = {op: network_of(op, size).eval() for op in ("naive", "tvconv", "depthwise")}
    networks["tvconv, baked"] = bake(networks["tvconv"])
    jobs: dict[str, Job] = {name: forward(network, image) for name, network in networks.items()}
    image_last = image.to(memory_format=torch.channels_last)
    for name in list(networks):
        last = copy.deepcopy(networks[name]).to(memory_format=torch.channels_last)
        jobs[f"{name}, channels last"] = forward(last, image_last)
        jobs[f"{name}, bf16, channels last"] = forward(torch.autocast("cpu", dtype=torch.bfloat16)(last), image_last)
    for form in ("channels last", "bf16, channels last"):
        for level in lower_levels():
            jobs[f"tvconv, {form}, {level}"] = at_level(level, jobs[f"tvconv, {form}"])
    time = side_by_side(jobs, rounds=rounds, warm_up=2, clock=clock())
    what = f"inference, batch 1, {size}x{size}"
    rows = [
        Row(f"{what}, tvconv, fp32, contiguous", "the same, naive", time.ratio("naive", "tvconv"), 3),
        *(
            Row(f"{what}, tvconv, {form}", rival, time.ratio(f"naive{ending}", f"tvconv, {form}"))
            for form in ("channels last", "bf16, channels last")
            for rival, ending in (("the same, naive", f", {form}"), ("naive, fp32, contiguous", ""))
        ),
        *(
            Row(f"{what}, {ours}", f"depthwise{form}", time.ratio(ours, f"depthwise{form}"), 1.1, False, where(level))
            for form in ("", ", channels last", ", bf16, channels last")
            for level in native.levels()
            for ours in (f"tvconv{form}" if level == native.level() else f"tvconv{form}, {level}",)
            if ours in jobs
        ),
        Row(f"{what}, tvconv, baked", "depthwise", time.ratio("tvconv, baked", "depthwise"), 1.15, faster=False),
        Row(
            f"{what}, tvconv, baked, channels last",
            "depthwise, channels last",
            time.ratio("tvconv, baked, channels last", "depthwise, channels last"),
            faster=False,
        ),
    ]
    return rows, {f"inference: {name}": time.milliseconds(name) for name in jobs}


def clock() -> Callable[[], float]:
    """CPU time where one thread computes; wall time where there are more, whose CPU times add up."""
    return process_time if torch.get_num_threads() == 1 else perf_counter


def lower_levels() -> tuple[str, ...]:
    """The levels of instructions below the one that computes, where the C++ kernel can be compiled."""
    return native.levels()[1:] if native.unavailable() is None else ()


def at_level(level: str, job: Job) -> Job:
    """The job with the instructions of another level; the best one that there is computes after it."""

    def forced() -> None:
        os.environ[native.LEVEL_VARIABLE] = level
        job()
        del os.environ[native.LEVEL_VARIABLE]

    return forced


def forward(function: Callable[..., Tensor], *operands: object) -> Job:
    """The forward pass alone, without recording gradients."""

    def job() -> None:
        with torch.no_grad():
            function(*operands)

    return job


def on_torch_operations(job: Job) -> Job:
    """The job as it runs on a machine without a C++ compiler."""

    def without_compiler() -> None:
        with dispatch.using("portable"):
            job()

    return without_compiler


def forward_backward(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Job:
    """Forward pass and the gradients of both operands."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()

    def job() -> tuple[Tensor, ...]:
        out = function(x, weight)
        return torch.autograd.grad(out, (x, weight), out.detach())

    return job


def training_step(network: nn.Module, images: Tensor, masks: Tensor, dtype: torch.dtype) -> Job:
    """One training step as in `fundus_seg.training.fit`, under autocast unless `dtype` is float32."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def job() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
            logits = network(images)
        losses = binary_cross_entropy(logits.float(), masks)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()

    return job


def network_of(op: str, size: int) -> nn.Module:
    """The paper's network with random weights, the same ones for `naive` and `tvconv`."""
    torch.manual_seed(0)
    return naive_network(image_size=size) if op == "naive" else build_model(op, image_size=size)


def report(to_copy: list[str], rows: list[Row], timings: Mapping[str, Spread], note: str = "") -> str:
    """The text of the page: the machine, the ratios, and the times that they are computed from."""
    reason = native.unavailable()
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    features = [name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name)]
    maps, kernels = 4 * BATCH * CHANNELS * SIDE**2, 4 * CHANNELS * TAPS * SIDE**2
    copied = 2 * maps / timings["operator: copy of x"].median / 1e6
    lines = [
        "# TVConv on the CPU",
        "",
        f"{machine()}. bf16 instructions: {', '.join(features) or 'none'}. "
        f"Backend: {'portable (' + reason + ')' if reason else f'native (C++), {native.level()}'}.",
        "",
        "Written by `make bench`, in one process. In every round each job runs once; ratios are taken within a round.",
        "One thread is measured in CPU time, more threads in wall time.",
        f"Shown are the median over the rounds and, in brackets, the quartiles. {note}".rstrip(),
        "",
        f"## Each pass against a copy: ({BATCH},{CHANNELS},{SIDE},{SIDE}), k 3",
        "",
        "Time of a pass / time of a copy that reads and writes as many bytes in all, with as many threads. To reach:",
        "at most 2.5, and 6 with the baseline. The column after each is torch's operations / ours, to be at least 1.",
        "Every level of instructions ran on the processor above; `FUNDUS_SEG_CPU_LEVEL` forced the lower ones.",
        "",
        "| on | dtype | layout | forward | torch | gradient of x | torch | gradient of kernels | torch |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        *to_copy,
        "",
        "## Ratios",
        "",
        "| what | against | ratio | to reach | reached | on |",
        "|---|---|---:|---:|---|---|",
        *map(str, rows),
        "",
        f"The least that must be moved: forward {(2 * maps + kernels) / 1e6:.0f} MB (input, kernels, output), "
        f"backward {(3 * maps + 2 * kernels) / 1e6:.0f} MB. A copy of the input moves {copied:.0f} GB/s here.",
        "",
        "## Times",
        "",
        "| job | milliseconds |",
        "|---|---:|",
        *(f"| {name} | {spread} |" for name, spread in timings.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
