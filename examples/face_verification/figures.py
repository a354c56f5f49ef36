"""Draw accuracy against costs, throughput by batch and threads, and what TVConv learned in each stage.

    python figures.py --out runs/faces --plots plots

It trains what is not in the folder yet, measures the networks at the size of the pictures, and writes as PNG and SVG

- `accuracy`: accuracy against MACs, a line for each operator over its widths (the paper's Fig. 4);
- `throughput`: pictures in a second by batch and number of threads (its throughput, Fig. 8);
- `trade-off`: accuracy against MACs, best throughput and peak memory, a dot for each network (Fig. 9);
- `affinity`: of the last operator of each stage, affinity maps and kernels of the first seed (Fig. 6).
"""

from __future__ import annotations

import argparse
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from compare import identities, percent_right
from costs import measure_costs, measure_throughput
from matplotlib.figure import Figure
from script import run
from trained import Cell, add_grid, train_grid, trained_network

from fundus_seg.errors import counted
from fundus_seg.models import measure_layers
from fundus_seg.models.backbones import Embedder
from fundus_seg.runs.kernels import LayerKernels
from fundus_seg.statistics.intervals import bootstrap_interval
from fundus_seg.viz.affinity import draw_affinity
from fundus_seg.viz.curves import draw_curves
from fundus_seg.viz.style import save
from fundus_seg.viz.trade_off import draw_trade_off

ACCURACY = {"accuracy": "pairs told right [%]"}
COSTS = {
    "macs": "MACs for a picture [M]",
    "throughput": "best throughput [pictures/s]",
    "memory": "peak memory of a batch of 8 [MiB]",
}


def measured_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each operator and width in the rows of `train_grid`: `op`, `width`, `name`, `y`, `low`, `high`, `over`.

    `y` is the mean accuracy in percent, `low` and `high` are the ends of its 95 % interval, and `over` says what
    was resampled: runs are seeds, cases are pairs.
    """
    found = []
    patients = [identities(rows)]
    for op, width in rows[["op", "width"]].drop_duplicates().itertuples(index=False):
        right = percent_right(rows, op, width)
        interval = bootstrap_interval(right, patients=patients).within(0, 100)
        ends = {"y": right.to_numpy().mean(), "low": interval.low, "high": interval.high, "over": interval.over}
        found.append({"op": op, "width": width, "name": _name(op, width), **ends})
    return pd.DataFrame(found)


def by_stage(network: Embedder) -> dict[str, LayerKernels]:
    """What the last operator of each stage learned, by the stage; empty where none has kernels for each position."""
    backbone = network.backbone
    layers = {stage: measure_layers(step) for stage, step in zip(backbone.stages, backbone.steps(), strict=True)}
    return {stage: found[-1] for stage, found in layers.items() if found}


def draw(options: Namespace, rows: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """The name of each figure, and the figure; one of affinity for each network with kernels for each position."""
    accuracy = measured_accuracy(rows)
    first = [Cell(op, width, 0) for op, width in accuracy[["op", "width"]].itertuples(index=False)]
    networks = {_name(cell.op, cell.width): trained_network(options, cell) for cell in first}
    told = f"{options.family}, {'phantom faces, of nobody' if options.train is None else options.train.name}"
    told += f", {options.side}x{options.side}, {options.seeds} seeds"
    costs, rates = measure_costs(networks, options.side), measure_throughput(networks, options.side)
    costs = costs.set_index("name").assign(throughput=rates.groupby("name")["throughput"].max())
    millions, mebibytes = costs["macs"] / 1e6, costs["peak_memory_bytes"] / 2**20
    measured = {"macs": millions, "throughput": costs["throughput"], "memory": mebibytes}

    points = accuracy.assign(row="accuracy", panel="", line=accuracy["op"], x=accuracy["name"].map(millions))
    within = f"95 % intervals over {accuracy['over'][0]}"
    title = f"Accuracy against MACs over widths, {within}; {told}"
    yield "accuracy", draw_curves(points, rows=ACCURACY, panel="", across=COSTS["macs"], title=title)

    points = rates.assign(row="throughput", line=rates["name"], x=rates["batch"], y=rates["throughput"])
    points["panel"] = points["threads"].map(lambda threads: counted(threads, "thread"))
    title = f"Throughput, with quartiles; {told}"
    yield (
        "throughput",
        draw_curves(
            points, rows={"throughput": "pictures in a second"}, panel="", across="pictures in a batch", title=title
        ),
    )

    points = pd.concat(
        accuracy.assign(row="accuracy", panel=cost, x=accuracy["name"].map(of)) for cost, of in measured.items()
    )
    title = f"Accuracy against costs, {within}; {told}"
    yield "trade-off", draw_trade_off(points, rows=ACCURACY, panels=COSTS, title=title)

    for name, network in networks.items():
        if layers := by_stage(network):
            yield (
                f"affinity-{re.sub('[^a-z0-9.-]', '-', name)}",
                draw_affinity(layers, title=f"What {name} learned, the last operator of each stage, seed 0; {told}"),
            )


def main() -> None:
    """Train what is not there, draw, and print the files that were written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_grid(parser, widths="0.1")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", required=True, help="where the figures are written")
    options = parser.parse_args()
    if options.plots.is_file():
        parser.error(f"--plots {options.plots} is a file; name a folder")
    for name, figure in draw(options, train_grid(options)):
        for path in save(figure, options.plots / name):
            print(path)


def _name(op: str, width: float) -> str:
    return f"{op} x{width:g}"


if __name__ == "__main__":
    run(main)
