"""Throughput of `predict --executor ray` on a cluster of two nodes of one core each, all on this machine.

    make bench-ray

The network is that of the preset `paper` with `tvconv` and random weights, in float32; the photographs are the
phantom's, of 800x800, as JPEG. A round predicts few of them, then many: the difference is what a photograph costs, and
what few cost beyond that is the fixed part. One process with one core does the same. The page is written to
`predict_ray.md`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ray
import torch
from PIL import Image
from ray.cluster_utils import Cluster

from fundus_seg.experiments.ray_predict import predict_on_ray
from fundus_seg.hardware import machine
from fundus_seg.inference.folder import predict_folder
from fundus_seg.models import build_model
from fundus_seg.models.checkpoint import network_state, write_checkpoint
from fundus_seg.phantom.make import draw_case
from timing import Spread

FEW, MANY, NODES = 8, 48, 2
DRAWN = 8


def main() -> None:
    """Measure, print the page and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("predict_ray.md"))
    options.add_argument("--rounds", type=int, default=4)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    os.environ.update(RAY_worker_niceness="0")  # on this machine the cluster's workers shall not yield to its rival
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _draw(folder)
        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        for _ in range(NODES - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level="ERROR")
        try:
            text = report(measure(folder, arguments.rounds))
        finally:
            ray.shutdown()
            cluster.shutdown()
    print(text)
    arguments.out.write_text(text, "utf8")


def _draw(folder: Path) -> None:
    """A model, and folders of few and of many photographs."""
    torch.manual_seed(0)
    usage = {"image_interpolation": "lanczos", "scoring": {}, "phantom": True}
    write_checkpoint(folder / "model.ckpt", network_state(build_model("tvconv"), usage))
    for number in range(DRAWN):
        Image.fromarray(draw_case("ABCD"[number % 4], number, 0)[0]).save(folder / f"{number}.jpg", quality=90)
    for count in (FEW, MANY):
        (folder / f"{count}").mkdir()
        for number in range(count):
            os.link(folder / f"{number % DRAWN}.jpg", folder / f"{count}/{number}.jpg")


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each rival for few and for many photographs; the first round is not kept."""
    rivals: dict[str, Callable[[Path, Path], Path]] = {
        "one process": lambda images, out: predict_folder(folder / "model.ckpt", [images], out, cores=1),
        "cluster": lambda images, out: predict_on_ray(folder / "model.ckpt", [images], out),
    }
    seconds: dict[str, list[float]] = {}
    for number in range(-1, rounds):
        for name, predict in rivals.items():
            for count in (FEW, MANY):
                started = time.perf_counter()
                predict(folder / f"{count}", folder / f"{name}-{count}-{number}")
                if number >= 0:
                    seconds.setdefault(f"{name}, {count}", []).append(time.perf_counter() - started)
    return seconds


def report(seconds: dict[str, list[float]]) -> str:
    """The text of the page."""

    def each(name: str) -> list[float]:
        few, many = seconds[f"{name}, {FEW}"], seconds[f"{name}, {MANY}"]
        return [(b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True)]

    def fixed(name: str) -> list[float]:
        return [a - FEW * b for a, b in zip(seconds[f"{name}, {FEW}"], each(name), strict=True)]

    speed_up = [a / b for a, b in zip(each("one process"), each("cluster"), strict=True)]
    rows = [
        ("a photograph, one process [s]", each("one process"), "{:.3f}"),
        (f"a photograph, {NODES} nodes of one core [s]", each("cluster"), "{:.3f}"),
        ("photographs a second, cluster over one process", speed_up, "{:.2f}"),
        ("fixed part, one process [s]", fixed("one process"), "{:.1f}"),
        (f"fixed part, {NODES} nodes of one core [s]", fixed("cluster"), "{:.1f}"),
    ]
    lines = [
        "# What predict costs on a Ray cluster",
        "",
        f"{machine()}. A cluster of {NODES} nodes of one core each on this machine; ray {ray.__version__}.",
        "",
        "Written by `make bench-ray`. Shown are the median over rounds, and in brackets the quartiles.",
        "",
        "| what | measured |",
        "|---|---:|",
    ]
    for what, values, form in rows:
        spread = Spread.of(values)
        median, first, third = (form.format(value) for value in (spread.median, spread.first, spread.third))
        lines.append(f"| {what} | {median} ({first}-{third}) |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
