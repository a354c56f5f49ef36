"""Networks as ONNX beside torch, on this machine's CPU: how far they agree, and how fast they are.

    .venv/bin/python benchmarks/deploy.py

One thread is measured, in CPU time, which other work on the machine changes little. Each pair runs in turns in this one
process. Weights are random, with norms that fit the photographs; the baked network in torch is the faster rival. The
table is written to `deploy.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import nn

from fundus_seg.builtins import OPERATORS
from fundus_seg.hardware import machine
from fundus_seg.inference.onnx_check import parity
from fundus_seg.inference.onnx_network import OnnxNetwork
from fundus_seg.inference.onnx_samples import phantom_samples
from fundus_seg.inference.predict import Predictor
from fundus_seg.models import bake, build_model, scale_photographs
from fundus_seg.models.onnx_graph import to_onnx
from timing import side_by_side

ENCODERS = (
    "tu-tf_efficientnet_lite0",
    "resnet34",
    "tu-convnext_tiny",
    "tu-vit_small_patch14_dinov2",
    "tu-vit_small_patch16_dinov3",
)
ROUNDS = 15


def networks() -> Iterator[tuple[str, dict[str, Any]]]:
    """What each row is of, and the arguments of `build_model`."""
    for op in OPERATORS:
        yield f"`{op}`, mobilenet_v2", {"op": op}
    for encoder in ENCODERS:
        yield f"`depthwise`, {encoder}", {"op": "depthwise", "encoder": encoder}


@torch.no_grad()
def row(what: str, spec: dict[str, Any], rounds: int = ROUNDS) -> str:
    """The line of the table of one network."""
    torch.manual_seed(0)
    network = build_model(**spec)
    cpu = torch.device("cpu")
    original = Predictor(network, device=cpu)
    samples = phantom_samples(original)
    images = scale_photographs(torch.stack([torch.tensor(each.seen) for each in samples]).permute(0, 3, 1, 2))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of these photographs
    network.train()(images)
    network.eval()
    graph = to_onnx(network).SerializeToString()
    as_onnx = OnnxNetwork(graph, network.spec)
    checked = parity(original, Predictor(as_onnx, device=cpu), samples)
    baked = bake(network).to(memory_format=torch.channels_last)
    jobs = {"torch": partial(baked, images[:1]), "onnx": partial(as_onnx, images[:1])}
    timings = side_by_side(jobs, rounds=rounds, warm_up=2, clock=process_time)
    times = " | ".join(str(timings.milliseconds(name)) for name in jobs)
    return (
        f"| {what} | {len(graph) / 1e6:.0f} | {checked.largest_difference:.0e} | {100 * checked.equal_pixels:.4f} | "
        f"{times} | {timings.ratio('torch', 'onnx')} |"
    )


def main() -> None:
    """Measure all rows and write the page."""
    torch.set_num_threads(1)
    lines = [
        "# Networks as ONNX beside torch",
        "",
        f"{machine()}. Networks of `paper` at 256x256, random weights, one photograph at a time.",
        "",
        "Written by `benchmarks/deploy.py`. Times are CPU times: median over rounds, in brackets quartiles.",
        "",
        "| network | ONNX [MB] | probabilities differ by | equal pixels [%] | torch [ms] | ONNX [ms] | torch / ONNX |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(row(what, spec) for what, spec in networks()),
        "",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines), "utf8")


if __name__ == "__main__":
    main()
