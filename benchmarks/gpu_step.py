"""What a training step of the `paper` preset spends its time on, on this machine's GPU.

    python benchmarks/gpu_step.py

The steps of each operator are computed in several ways that take turns: as in a run (deterministic kernels, bf16,
channels last), with torch's fastest kernels, with torch's deterministic gradient of bilinear upsampling, and so on.
Further parts measure the upsampling alone, the places where the host waits within a step, a profile of one step, and
the step as a CUDA graph.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from fundus_seg.config import RunConfig, load_config
from fundus_seg.models import build_model, deeplab, scale_photographs
from fundus_seg.ops.upsampling import Upsampling
from fundus_seg.seeding import reproducible
from fundus_seg.training.task import find_loss
from gpu_table import OPS, mark, waits_noted
from timing import Spread

DOMAINS = 3
"""Source domains of a step."""


@dataclass(frozen=True)
class Way:
    """A way to compute a step."""

    deterministic: bool = True
    torch_upsampling: bool = False
    bf16: bool = True
    channels_last: bool = True
    search: bool = False
    """Whether cuDNN tries its kernels and takes the fastest one."""
    captured: bool = False
    """Whether the step is a CUDA graph, which the host starts with a single call."""

    @contextlib.contextmanager
    def set(self) -> Iterator[None]:
        """Within it, torch computes in this way."""
        resize = patch.object(deeplab, "upsample_bilinear", interpolated)
        upsampling = resize if self.torch_upsampling else contextlib.nullcontext()
        searches = torch.backends.cudnn.benchmark
        with reproducible(torch.get_num_threads()), upsampling:
            torch.use_deterministic_algorithms(self.deterministic)
            torch.backends.cudnn.benchmark = self.search
            try:
                yield
            finally:
                torch.backends.cudnn.benchmark = searches


WAYS = {
    "as a run": Way(),
    "fastest kernels": Way(deterministic=False, torch_upsampling=True),
    "torch's upsampling": Way(torch_upsampling=True),
    "contiguous": Way(channels_last=False),
    "fastest kernels, cuDNN searching": Way(deterministic=False, torch_upsampling=True, search=True),
}


CAPTURED = Way(captured=True)


class Training:
    """A network in training, with the steps of `fundus_seg.training.fit`, on photographs that lie on the device."""

    def __init__(self, config: RunConfig, way: Way, device: str) -> None:
        self.way, self.device = way, device
        self.format = torch.channels_last if way.channels_last else torch.contiguous_format
        torch.manual_seed(0)
        network: Any = build_model(**config.network_spec(), encoder_weights=None)
        self.network = network.to(device, memory_format=self.format).train()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=config.optim.lr,
            betas=config.optim.betas,
            fused=True,
            capturable=way.captured,
        )
        self.loss_of = find_loss(config.train.loss)
        cases, size = DOMAINS * config.train.batch_per_domain, config.data.size
        self.graph: Any = None
        self.images = torch.randint(256, (cases, 3, size, size), dtype=torch.uint8, device=device)
        self.masks = torch.randint(2, (cases, 2, size, size), dtype=torch.uint8, device=device)

    def step(self) -> None:
        """Take one step; if steps are to be captured, the first call warms up and captures one."""
        if not self.way.captured:
            self._step()
        elif self.graph is not None:
            self.graph.replay()
        else:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._step()
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._step()

    def _step(self) -> None:
        images = scale_photographs(self.images).to(memory_format=self.format)
        caches = not self.way.captured
        with torch.autocast(self.device, torch.bfloat16, enabled=self.way.bf16, cache_enabled=caches):
            logits = self.network(images)
        losses = self.loss_of(logits.float(), self.masks)
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()


@dataclass(frozen=True)
class Steps:
    """Milliseconds of a step on the device, milliseconds to queue it on the host, and its peak memory in GiB."""

    device: Spread
    host: Spread
    memory: float


def main() -> int:
    """Measure, print; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=10, help="rounds, in each of which every way takes one step")
    options.add_argument("--config", default="paper")
    arguments = options.parse_args()
    if not torch.cuda.is_available():
        print("error: no CUDA device here: run this on a machine with an NVIDIA GPU.", file=sys.stderr)
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, preset {arguments.config}.\n", flush=True)
    configs = {op: load_config(arguments.config, arguments={"holdout": "A", "model.op": op}) for op in OPS}
    for part in (upsampling_report, steps_report, waits_report, profile_report, graph_report):
        try:
            print(part(configs, "cuda", arguments.rounds), flush=True)
        except Exception as error:  # the other parts are still useful
            print(f"\nsummary: {part.__name__} failed: {type(error).__name__}: {str(error)[:500]}\n", flush=True)
    return 0


def steps_report(configs: dict[str, RunConfig], device: str, rounds: int) -> str:
    """Table with a row for each operator and way."""
    lines = ["| operator | way | step [ms] | queued by the host in [ms] | memory [GiB] | of a run's step |"]
    lines += ["|---|---|---:|---:|---:|---:|"]
    summary = []
    for op, config in configs.items():
        steps = measure_steps(config, device, rounds)
        own = steps["as a run"].device.median
        for name, each in steps.items():
            share = each.device.median / own
            lines.append(f"| {op} | {name} | {each.device} | {each.host} | {each.memory:.1f} | {share:.2f} |")
        deterministic = 1 - steps["fastest kernels"].device.median / own
        theirs = steps["torch's upsampling"].device.median
        summary.append(
            f"summary: {op}: a step takes {own:.1f} ms; determinism is {deterministic:.0%} of it; "
            f"with torch's deterministic upsampling {theirs:.1f} ms."
        )
    return "\n".join([*lines, "", *summary, ""])


def measure_steps(config: RunConfig, device: str, rounds: int) -> dict[str, Steps]:
    """Measure steps: every way takes one step in each round, after two rounds that warm up."""
    trainings = {name: Training(config, way, device) for name, way in WAYS.items()}
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in WAYS}
    host: dict[str, list[float]] = {name: [] for name in WAYS}
    memory = dict.fromkeys(WAYS, 0.0)
    for number in range(-2, rounds):
        for name, training in trainings.items():
            with training.way.set():
                synchronise(device)
                held = reset_memory(device)
                begin, began = mark(), time.perf_counter()
                training.step()
                queued = time.perf_counter()
                end = mark()
                synchronise(device)
            if number >= 0:
                marks[name].append((begin, end))
                host[name].append(1e3 * (queued - began))
                memory[name] = max(memory[name], peak_memory(device) - held)
    return {
        name: Steps(Spread.of([a.elapsed_time(b) for a, b in marks[name]]), Spread.of(host[name]), memory[name] / 2**30)
        for name in WAYS
    }


def upsampling_report(configs: dict[str, RunConfig], device: str, rounds: int) -> str:
    """Table of the two upsamplings of a step alone, forward and backward."""
    config = next(iter(configs.values()))
    batch, size = DOMAINS * config.train.batch_per_domain, config.data.size
    low, deep = size // 4, size // 16
    places = {
        f"({batch}, {config.model.aspp_channels}, {deep}, {deep}) to {low}": (config.model.aspp_channels, deep, low),
        f"({batch}, 2, {low}, {low}) to {size}": (2, low, size),
    }
    ways = {
        "torch's, deterministic": (True, interpolated),
        "torch's own kernel": (False, interpolated),
        "ours": (True, Upsampling.apply),
    }
    lines = ["| bf16, channels last | upsampling | forward [ms] | forward + backward [ms] |", "|---|---|---:|---:|"]
    total = dict.fromkeys(ways, 0.0)
    for place, (channels, before, after) in places.items():
        x = torch.randn(batch, channels, before, before, device=device, dtype=torch.bfloat16)
        x = x.to(memory_format=torch.channels_last)
        grad = torch.randn(batch, channels, after, after, device=device, dtype=torch.bfloat16)
        grad = grad.to(memory_format=torch.channels_last)
        for name, (deterministic, function) in ways.items():
            with reproducible(torch.get_num_threads()):
                torch.use_deterministic_algorithms(deterministic)
                forward = milliseconds(lambda: function(x, (after, after)), device, rounds)  # noqa: B023
                both = milliseconds(lambda: differentiated(function, x, grad, (after, after)), device, rounds)  # noqa: B023
            total[name] += both.median
            lines.append(f"| {place} | {name} | {forward} | {both} |")
        with reproducible(torch.get_num_threads()):
            ours, again = (differentiated(Upsampling.apply, x, grad, (after, after)) for _ in range(2))
        exact = differentiated(interpolated, x.double(), grad.double(), (after, after))
        error = float((ours.double() - exact).norm() / exact.norm())
        lines.append(
            f"| {place} | ours: gradient's error {error:.1e}; same bits twice: {torch.equal(ours, again)} | | |"
        )
    text = ", ".join(f"{name} {value:.2f} ms" for name, value in total.items())
    return "\n".join([*lines, "", f"summary: both upsamplings of a step, forward + backward: {text}.", ""])


def differentiated(
    function: Callable[[Tensor, Sequence[int]], Tensor], x: Tensor, grad: Tensor, size: Sequence[int]
) -> Tensor:
    """The gradient of x."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x, size), x, grad)[0]


def interpolated(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear upsampling by torch alone."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def waits_report(configs: dict[str, RunConfig], device: str, rounds: int) -> str:
    """List of the places in a step where the host waits for the device, after a check that a wait would be found."""
    with waits_noted() as found:
        torch.ones(1, device=device).item()
    lines = [f"summary: of one host wait, made to be found, {len(found)} is noted."]
    for op, config in configs.items():
        training = Training(config, WAYS["as a run"], device)
        with training.way.set():
            for _ in range(2):
                training.step()
            with waits_noted() as found:
                training.step()
        lines += [f"{op}: {place}" for place in found]
        lines.append(f"summary: {op}: {len(found)} host waits in a step.")
    return "\n".join([*lines, ""])


def profile_report(configs: dict[str, RunConfig], device: str, rounds: int) -> str:
    """Profile of one step of each operator by kernel, and of tvconv by torch operation as well."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    lines = []
    for op, config in configs.items():
        training = Training(config, WAYS["as a run"], device)
        with training.way.set():
            for _ in range(3):
                training.step()
            synchronise(device)
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
            with profile(activities=activities, record_shapes=True) as profiler:
                began = time.perf_counter()
                training.step()
                synchronise(device)
                wall = 1e3 * (time.perf_counter() - began)
        del training
        kernels = [row for row in profiler.key_averages() if row.device_type != DeviceType.CPU]
        kernels = [row for row in kernels if "#" not in row.key]  # spans that torch marks, such as Adam's step
        busy = sum(row.self_device_time_total for row in kernels) / 1e3
        count = sum(row.count for row in kernels)
        lines += ["", f"{op}: a step of {wall:.1f} ms, profiled; {count} kernels, {busy:.1f} ms in all.", ""]
        lines += _rows(kernels, "kernel", 25 if op == "tvconv" else 12)
        if op == "tvconv":
            shaped = profiler.key_averages(group_by_input_shape=True)
            shaped = [row for row in shaped if row.device_type == DeviceType.CPU]
            lines += ["", "By operation and the shapes of its inputs:", "", *_rows(shaped, "operation", 45)]
        lines += ["", f"summary: {op}: {count} kernels a step, {busy:.1f} ms of kernels."]
    return "\n".join([*lines, ""])


def graph_report(configs: dict[str, RunConfig], device: str, rounds: int) -> str:
    """Table of steps as CUDA graphs: the host then does not start each kernel by itself."""
    lines, summary = ["| operator | way | step [ms] |", "|---|---|---:|"], []
    for op, config in configs.items():
        training = Training(config, CAPTURED, device)
        with CAPTURED.set():
            time_of = milliseconds(training.step, device, rounds)
        lines.append(f"| {op} | as a CUDA graph | {time_of} |")
        summary.append(f"summary: {op}: as a CUDA graph, a step takes {time_of.median:.1f} ms.")
    return "\n".join([*lines, "", *summary, ""])


def _rows(averages: Sequence[Any], what: str, most: int) -> list[str]:
    """Markdown table of the kernels or operations that take most of the device's time."""
    ranked = sorted(averages, key=lambda row: -row.self_device_time_total)[:most]
    lines = [f"| {what} | times | ms |", "|---|---:|---:|"]
    for row in ranked:
        shapes = f" {[shape for shape in row.input_shapes if shape][:3]}" if row.input_shapes else ""
        name = f"{row.key[:90]}{shapes}".replace("|", "/")
        lines.append(f"| {name} | {row.count} | {row.self_device_time_total / 1e3:.3f} |")
    return lines


def milliseconds(job: Callable[[], object], device: str, rounds: int) -> Spread:
    """Milliseconds of a job on the device, after two runs that warm up."""
    pairs = []
    for number in range(-2, rounds):
        synchronise(device)
        begin = mark()
        job()
        end = mark()
        synchronise(device)
        if number >= 0:
            pairs.append((begin, end))
    return Spread.of([a.elapsed_time(b) for a, b in pairs])


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def reset_memory(device: str) -> int:
    """Start counting the peak memory anew, and give the bytes that tensors hold now."""
    if device != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_memory(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


if __name__ == "__main__":
    sys.exit(main())
