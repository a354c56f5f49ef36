"""Throughput of `predict` beside that of the bare network, what its steps take, and its memory.

    make bench

A network of the preset `paper` with `tvconv` and random weights computes in one thread, in float32; the other core has
the rest. A disc and a cup are added to its logits, so that the masks are of usual size. Photographs are the phantom's,
enlarged where they are to be larger, as JPEG. Both rivals work on the same photographs, one after the other in each
round. The page is written to `predict.md`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fundus_seg.cores import core_count
from fundus_seg.data.box import Box
from fundus_seg.data.io import read_photograph, write_mask
from fundus_seg.digests import file_digest
from fundus_seg.hardware import machine
from fundus_seg.inference.case_rows import row_of
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.localise import localiser
from fundus_seg.inference.predict import Predictor
from fundus_seg.inference.roi import Region
from fundus_seg.models import build_model
from fundus_seg.models.checkpoint import network_state, write_checkpoint
from fundus_seg.phantom.make import draw_case
from timing import Spread, Timings, side_by_side

SIZES = {"800x800": 24, "2124x2056": 12}
"""Widths and heights, and how many photographs a round has of each."""
THROUGHPUT, MORE_MEMORY = 0.9, 1.1
FEW, MANY = 100, 10_000
TINY = {"encoder": "tu-mobilenetv2_035", "image_size": 64, "aspp_channels": 8, "expansion": 1, "generator_channels": 4}


class Drawn(nn.Module):
    """A network whose logits a disc and a cup are drawn on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.spec = network, network.spec
        side = int(network.spec["image_size"])  # type: ignore[index,arg-type]
        places = torch.arange(side) - side / 2
        far = torch.hypot(places[:, None], 1.1 * places) / side
        self.drawn = 20 * torch.stack([0.25 - far, 0.13 - far])

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits + self.drawn


def main() -> None:
    """Measure, print the page and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("predict.md"))
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--many", type=int, default=MANY, help="photographs of the larger measurement of memory")
    options.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.memory_of:
        print(_peak_memory(arguments.memory_of))
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    predictor = Predictor(Drawn(build_model("tvconv")), device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        timings = {size: _throughput(predictor, folder, size, count, arguments.rounds) for size, count in SIZES.items()}
        steps = {size: _steps(predictor, folder, size) for size in SIZES}
        memory = [_memory(folder, count) for count in (FEW, arguments.many)]
    text = report(timings, steps, memory, arguments.many)
    print(text)
    arguments.out.write_text(text, "utf8")


def _throughput(predictor: Predictor, folder: Path, size: str, count: int, rounds: int) -> Timings:
    """Rounds of `predict_folder` with a model that is loaded, and of its network alone on the same batches.

    `own` and `others` are the seconds of the processor that the network's thread and the other threads took in
    `predict`, `bare` those of the network alone: they hardly depend on what else the machine does.
    """
    processor: dict[str, list[float]] = {"own": [], "others": [], "bare": []}
    photographs = folder / size
    photographs.mkdir()
    width, height = map(int, size.split("x"))
    for number in range(count):
        image = cv2.resize(draw_case("ABCD"[number % 4], number, 0)[0], (width, height), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(image).save(photographs / f"{number}.jpg", quality=90)
    checkpoint = folder / "model"
    checkpoint.write_bytes(b"")  # its digest is asked for; the model itself is there already
    prepared = [predictor.prepare(read_photograph(path).pixels) for path in sorted(photographs.iterdir())]
    made: list[Path] = []

    def ours() -> None:
        made.append(folder / f"{size}-{len(made)}")
        whole, own = time.process_time(), time.thread_time()
        with patch("fundus_seg.inference.predict.load_model", lambda *_, **__: predictor):
            predict_folder(checkpoint, [photographs], made[-1])
        processor["own"].append(time.thread_time() - own)
        processor["others"].append(time.process_time() - whole - processor["own"][-1])

    def bare() -> None:
        before = time.thread_time()
        for image in prepared:
            predictor.logits_of_batch([image], image.shape)
        processor["bare"].append(time.thread_time() - before)

    timed = side_by_side({"predict": ours, "network": bare}, rounds=rounds)
    return Timings({**timed.seconds, **{name: seconds[-rounds:] for name, seconds in processor.items()}})


def _steps(predictor: Predictor, folder: Path, size: str) -> dict[str, float]:
    """Milliseconds of the processor that each step takes for a photograph: the median of several."""
    path = next((folder / size).iterdir())
    photograph = read_photograph(path).pixels
    frame = photograph.shape[:2]
    logits = predictor.logits_of_batch([predictor.prepare(photograph)], frame)[0]
    raw = predictor.framed(logits, frame)
    masks = predictor.clean(raw)
    find, whole = localiser(), Region("full", Box.whole(frame))
    jobs: dict[str, Callable[[], object]] = {
        "decode": lambda: read_photograph(path),
        "digest": lambda: file_digest(path),
        "resize": lambda: predictor.prepare(photograph),
        "upsample and threshold": lambda: predictor.framed(logits, frame),
        "largest components, holes": lambda: predictor.clean(raw),
        "find the disc": lambda: find(photograph),
        "row": lambda: row_of(path, photograph, masks, None, region=whole, framing=None, phantom=False, inputs=""),
        "write the mask": lambda: write_mask(folder / "mask.png", masks, "png"),
    }
    return {name: 1e3 * float(np.median([_processor_time(job) for _ in range(15)])) for name, job in jobs.items()}


def _processor_time(job: Callable[[], object]) -> float:
    before = time.thread_time()
    job()
    return time.thread_time() - before


def _memory(folder: Path, count: int) -> float:
    """MiB at most of a process that predicts this many tiny photographs with a tiny network."""
    place = folder / f"memory-{count}"
    (place / "photographs").mkdir(parents=True)
    torch.manual_seed(0)
    usage = {"image_interpolation": "lanczos", "scoring": {}}
    write_checkpoint(place / "model.ckpt", network_state(build_model("tvconv", **TINY), usage))  # type: ignore[arg-type]
    Image.fromarray(draw_case("A", 0, 0)[0]).resize((96, 96)).save(place / "first.png")
    for number in range(count):
        os.link(place / "first.png", place / f"photographs/{number}.png")
    command = [sys.executable, __file__, "--memory-of", place]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_memory(place: Path) -> float:
    torch.set_num_threads(1)
    predict_folder(place / "model.ckpt", [place / "photographs"], place / "out")
    status = Path("/proc/self/status").read_text()  # not ru_maxrss, which a process inherits from its parent
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def report(timings: dict[str, Timings], steps: dict[str, dict[str, float]], memory: Sequence[float], many: int) -> str:
    """The text of the page."""
    lines = [
        "# What predict costs beside its network",
        "",
        f"{machine()}, {core_count()} cores. Network of `paper`, `tvconv`, random weights, float32, batch 1.",
        "",
        "Written by `make bench`. Shown are the median over rounds, and in brackets the quartiles.",
        "",
        "| photographs | network [ms] | predict [ms] | throughput of predict / network | to reach | reached |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for size, of_size in timings.items():
        each = {
            name: Spread.of([1e3 * value / SIZES[size] for value in of_size.seconds[name]])
            for name in ("network", "predict")
        }
        ratio = of_size.ratio("network", "predict")
        reached = "yes" if ratio.median >= THROUGHPUT else "no"
        lines.append(f"| {size} | {each['network']} | {each['predict']} | {ratio} | >= {THROUGHPUT:g} | {reached} |")
    lines += [
        "",
        "The same in time of the processor, which other work on the machine hardly changes. With a core for the",
        "network's thread and another for the others, the slower sets the pace:",
        "",
        "| photographs | network alone [ms] | its thread in predict [ms] | other threads [ms] | throughput at most |",
        "|---|---:|---:|---:|---:|",
    ]
    for size, of_size in timings.items():
        alone, own, others = (
            Spread.of([1e3 * value / SIZES[size] for value in of_size.seconds[name]])
            for name in ("bare", "own", "others")
        )
        at_most = min(1, alone.median / max(own.median, others.median))
        lines.append(f"| {size} | {alone} | {own} | {others} | {at_most:.2f} |")
    lines += ["", "What the other core does for each photograph, in milliseconds of its time:", ""]
    lines += [f"| step | {' | '.join(steps)} |", f"|---|{'---:|' * len(steps)}"]
    totals = {size: {**of_size, "together": sum(of_size.values())} for size, of_size in steps.items()}
    for name in next(iter(totals.values())):
        lines.append(f"| {name} | {' | '.join(f'{of_size[name]:.1f}' for of_size in totals.values())} |")
    more = memory[1] / memory[0]
    lines += [
        "",
        "Peak memory of a process (96x96, a tiny network):",
        "",
        "| what | measured | to reach | reached |",
        "|---|---:|---:|---|",
        f"| {FEW} photographs [MiB] | {memory[0]:.0f} | | |",
        f"| {many} photographs [MiB] | {memory[1]:.0f} | | |",
        f"| ratio | {more:.2f} | <= {MORE_MEMORY:g} | {'yes' if more <= MORE_MEMORY else 'no'} |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
