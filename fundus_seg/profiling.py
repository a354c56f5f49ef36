"""Costs of a network's inference: parameters, multiply-accumulates (MACs), latency and peak memory, as numbers."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, product
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd.profiler import profile as profiler
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from fundus_seg.errors import FundusSegError
from fundus_seg.hardware import default_device, machine
from fundus_seg.models import bake, build_model
from fundus_seg.models.blocks import count_parameters, count_trained
from fundus_seg.models.deeplab import DeepLabV3Plus
from fundus_seg.ops import dispatch, native
from fundus_seg.ops.compared.ddf import decoupled_filter
from fundus_seg.progress import SILENT, Advance, Progress
from fundus_seg.protocol import check_side

REPEATS = 20
WARM_UP = 2


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of a network's inference.

    Attributes:
        image: for each photograph.
        generation: for generating kernels, once for a set of weights, however many photographs follow.
    """

    image: int
    generation: int


def profile(
    specs: Sequence[Mapping[str, Any]],
    *,
    size: int,
    batch: int = 1,
    repeats: int = REPEATS,
    frozen: bool = False,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Measure networks side by side, on the GPU where there is one, with random weights.

    Latency and memory are those of inference in float32, after WARM_UP passes, which leave the kernels generated. The
    networks take turns, so that other work on the machine affects all of them alike.

    Args:
        specs: the arguments of `build_model` for each network, without its weights.
        size: height and width of the photographs in pixels, a multiple of 16; the networks are built for their own
            `image_size`.
        batch: photographs in a batch.
        repeats: measured passes of each network, at least 2.
        frozen: whether the encoders are frozen when the networks are trained, which `trained_parameters` says.
        progress: where to show how far the measurement is.

    Returns:
        A row per network, with the columns `op`, `encoder`, `image_size`; `size`, `batch`, `rounds`; `parameters` of
        the network as it is trained, `trained_parameters` of those the ones that change, `baked_parameters` of what
        `bake` makes of it; `macs` for each photograph,
        `generation_macs` for generating kernels once; `latency_s`, the median seconds of a batch over the rounds, with
        its quartiles `latency_q1_s` and `latency_q3_s`; `peak_memory_bytes` beyond weights, cached kernels and
        photographs; and what computed, `machine` and `backend`.

    Raises:
        UsageError: the size is not a multiple of 16, or as `build_model`.
        FundusSegError: memory does not suffice.
    """
    networks, device = _networks(specs, size)
    if frozen:
        for network in networks:
            network.encoder.freeze()
    with _memory_that_suffices(size, batch):
        counts = [
            (count_parameters(each), count_trained(each), count_parameters(bake(each)), count_macs(each, size))
            for each in networks
        ]
        passes = _passes(networks, batch=batch, size=size, device=device)
        peaks = [peak_memory(infer, device) for infer in passes]
        with progress.task("rounds", repeats) as advance:
            rounds = _rounds(passes, repeats, device, advance)
    shared = {"size": size, "batch": batch, "rounds": repeats, "machine": machine(), "backend": _backend()}
    rows = []
    for network, count, seconds, peak in zip(networks, counts, zip(*rounds, strict=True), peaks, strict=True):
        parameters, trained, baked_parameters, macs = count
        first, median, third = statistics.quantiles(seconds, method="inclusive")
        rows.append(
            {
                **{name: network.spec[name] for name in ("op", "encoder", "image_size")},
                "parameters": parameters,
                "trained_parameters": trained,
                "baked_parameters": baked_parameters,
                "macs": macs.image,
                "generation_macs": macs.generation,
                "latency_s": median,
                "latency_q1_s": first,
                "latency_q3_s": third,
                "peak_memory_bytes": peak,
                **shared,
            }
        )
    return pd.DataFrame(rows)


def throughputs(
    specs: Sequence[Mapping[str, Any]],
    *,
    size: int,
    batches: Sequence[int],
    threads: Sequence[int],
    repeats: int = REPEATS,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Measure how many photographs networks of `build_model` take in a second, as `network_throughputs` does.

    Args:
        specs: the arguments of `build_model` for each network, without its weights.
        size: height and width of the photographs in pixels, a multiple of 16.
        batches: as in `network_throughputs`, and so are the others.
        threads: numbers of CPU threads.
        repeats: measured passes.
        progress: where to show how far the measurement is.

    Raises:
        UsageError, FundusSegError: as `profile`.
    """
    networks, _ = _networks(specs, size)
    return network_throughputs(
        networks, size=size, batches=batches, threads=threads, repeats=repeats, progress=progress
    )


def network_throughputs(
    networks: Sequence[nn.Module],
    *,
    size: int,
    batches: Sequence[int],
    threads: Sequence[int],
    repeats: int = REPEATS,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Measure how many pictures networks take in a second, by batch and number of threads, side by side.

    Inference is that of `profile`, and the networks take turns in the same way.

    Args:
        networks: in evaluation mode; each takes (B, 3, size, size), and is moved to the GPU where there is one.
        size: height and width of the pictures in pixels.
        batches: numbers of pictures in a batch.
        threads: numbers of CPU threads; on a GPU they make no difference, and one number is enough.
        repeats: measured passes of each network at each batch and number of threads, at least 2.
        progress: where to show how far the measurement is.

    Returns:
        A row per network, batch and number of threads: `network`, its place in `networks`; `batch`, `threads`, and
        `throughput`, pictures in a second, by the median of the passes, with `low` and `high` by their quartiles.

    Raises:
        FundusSegError: memory does not suffice.
    """
    device = default_device()
    rows = []
    with progress.task("throughput", len(batches) * len(threads) * repeats) as advance:
        for count, batch in product(threads, batches):
            with computing_with(count), _memory_that_suffices(size, batch):
                rounds = _rounds(_passes(networks, batch=batch, size=size, device=device), repeats, device, advance)
            for number, seconds in enumerate(zip(*rounds, strict=True)):
                fast, median, slow = statistics.quantiles(seconds, method="inclusive")
                rates = {"low": batch / slow, "throughput": batch / median, "high": batch / fast}
                rows.append({"network": number, "batch": batch, "threads": count, **rates})
    return pd.DataFrame(rows)


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Within it torch computes with so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count_macs(network: nn.Module, size: int, *, elementwise: bool = False) -> Macs:
    """MACs of convolutions, matrix products and the operators of this package; nothing is computed.

    The MACs that grow with the batch are those of the photographs; the rest generates kernels. Norms, activations and
    interpolation are left out, as is usual.

    Args:
        network: in evaluation mode; takes (B, 3, size, size).
        size: height and width of the photographs in pixels.
        elementwise: whether batch norms count too, two for each value, and activations of the family of ReLU, poolings
            and the bias of a linear layer, one for each value that the first two take and the last gives. So does the
            counter ptflops, of which the TVConv paper has the MACs of its light networks.
    """
    one, two = (_macs(network, batch, size, elementwise) for batch in (1, 2))
    return Macs(image=two - one, generation=2 * one - two)


def peak_memory(fn: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The most bytes that tensors hold at once while `fn()` runs, beyond what they held before.

    This counts outputs, activations, gradients and the buffers of operators, as far as torch allocates them. It does
    not count what libraries below torch allocate for themselves, nor parameters and inputs that were there before.

    Args:
        fn: the function, called once; its result is dropped.
        device: where it computes, "cpu" or a CUDA device.
    """
    device = torch.device(device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        fn()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else a process's first profile writes to standard error
    with profiler(profile_memory=True) as recorded:
        fn()
    events = sorted(recorded.kineto_results.events(), key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events if event.name() == "[memory]"), initial=0))


def _networks(specs: Sequence[Mapping[str, Any]], size: int) -> tuple[list[DeepLabV3Plus], torch.device]:
    """The networks in evaluation mode, still on the CPU, and the device to measure them on."""
    check_side("size", size)
    device = default_device()
    return [build_model(**spec).eval() for spec in specs], device


def _passes(
    networks: Sequence[nn.Module], *, batch: int, size: int, device: torch.device
) -> list[Callable[[], object]]:
    """A pass of each network over a batch, after WARM_UP passes, which leave the kernels generated."""
    images = torch.randn(batch, 3, size, size, device=device)
    passes: list[Callable[[], object]] = []
    for network in networks:
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the predictor does
        passes.append(torch.inference_mode()(partial(network, images)))
    for infer in passes:
        for _ in range(WARM_UP):
            infer()
    return passes


def _rounds(
    passes: Sequence[Callable[[], object]], repeats: int, device: torch.device, advance: Advance
) -> list[list[float]]:
    """Seconds of each network in each round, in which the networks take turns."""
    rounds = []
    for _ in range(repeats):
        rounds.append([_seconds(infer, device) for infer in passes])
        advance()
    return rounds


def _backend() -> str:
    """Name of the backend of translation-variant convolutions here, and why no faster one is used."""
    device = default_device()
    name = dispatch.backend(torch.empty(0, device=device)).__name__.rpartition(".")[2]
    reason = native.unavailable() if device.type == "cpu" else None
    return f"{name} ({reason})" if reason else name


def _macs(network: nn.Module, batch: int, size: int, elementwise: bool) -> int:
    """MACs of one pass that records gradients, so that no kernel comes from the cache."""
    formulas = {
        dispatch.forward: _translation_variant_flops,
        dispatch.grad_weight: _window_flops,
        decoupled_filter: _decoupled_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,  # the counter knows those of GPUs
    }
    if elementwise:
        formulas |= _ELEMENTWISE
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.enable_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
        network(torch.empty(batch, 3, size, size))
    return counter.get_total_flops() // 2


def _translation_variant_flops(
    x: torch.Size, weight: torch.Size, *geometry: int, out_shape: torch.Size, **_: Any
) -> int:
    """Two for each of the k² taps (weight: (C, k², h, w)) of each output; the name `out_shape` is the counter's."""
    return 2 * weight[1] * math.prod(out_shape)


def _window_flops(queries: torch.Size, keys: torch.Size, *geometry: int, out_shape: torch.Size, **_: Any) -> int:
    """Two for each channel of a group (queries: (C / G, B·G, h, w)) of each logit."""
    return 2 * queries[0] * math.prod(out_shape)


def _decoupled_flops(
    x: torch.Size, spatial: torch.Size, channel: torch.Size, *geometry: int, out_shape: torch.Size, **_: Any
) -> int:
    """Four for each of the k² taps (channel: (B, C, k²)) of each output: one product with each of the two filters."""
    return 4 * channel[2] * math.prod(out_shape)


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Those of the two products of matrices, in which a MAC counts two; the softmax is left out."""
    flops: int = sdpa_flop_count(query, key, value)
    return flops


def _for_each_value(macs: int) -> Callable[..., int]:
    """A formula: this many MACs for each value of the first argument."""

    def flops(x: torch.Size, *_: Any, **__: Any) -> int:
        return 2 * macs * math.prod(x)

    return flops


def _linear_flops(bias: torch.Size, a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * a[0] * b[1] * (a[1] + 1)


_ELEMENTWISE = {
    torch.ops.aten._native_batch_norm_legit_no_training: _for_each_value(2),
    torch.ops.aten.relu: _for_each_value(1),
    torch.ops.aten.relu_: _for_each_value(1),
    torch.ops.aten.hardtanh: _for_each_value(1),
    torch.ops.aten.hardtanh_: _for_each_value(1),
    torch.ops.aten.max_pool2d_with_indices: _for_each_value(1),
    torch.ops.aten.mean: _for_each_value(1),
    torch.ops.aten.addmm: _linear_flops,
}
"""What `count_macs` adds where it counts element by element; hardtanh is ReLU6, and a mean is the pooling of a map."""


def _seconds(infer: Callable[[], object], device: torch.device) -> float:
    _synchronise(device)
    started = time.perf_counter()
    infer()
    _synchronise(device)
    return time.perf_counter() - started


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _memory_that_suffices(size: int, batch: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and "DefaultCPUAllocator" not in str(error):  # its errors have no class of their own
            raise
        raise FundusSegError(
            f"memory does not suffice for batches of {batch} at {size}x{size} pixels: lower --batch or --size"
        ) from error
