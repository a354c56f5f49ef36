"""What networks cost: MACs, parameters, peak memory, and pictures in a second by batch and number of threads.

    python costs.py --ops depthwise,tvconv --widths 0.1,0.2

All is measured with random weights, side by side in one process, on the GPU where there is one. MACs are counted as the
paper counts them, element by element (`fundus_seg.models.backbones`), and so is its peak memory, of a batch of 8.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from script import at_least, names, numbers, run
from torch import nn
from train import FAMILIES, make_network

from fundus_seg.cores import core_count
from fundus_seg.errors import counted
from fundus_seg.hardware import default_device, gpu_name, machine
from fundus_seg.models import bake
from fundus_seg.models.blocks import count_parameters
from fundus_seg.profiling import count_macs, network_throughputs, peak_memory
from fundus_seg.progress import left_out

BATCHES, THREADS, REPEATS = (1, 2, 4, 8, 16), (1, 2, 4), 5
MEMORY_BATCH = 8


def measure_costs(networks: Mapping[str, nn.Module], size: int) -> pd.DataFrame:
    """What each network costs, one row each.

    Args:
        networks: in evaluation mode, by name; each takes (B, 3, size, size).
        size: of the pictures in pixels.

    Returns:
        The columns `name`; `macs` for each picture and `generation_macs` for kernels, once; `parameters` as it is
        trained and `baked_parameters`; `peak_memory_bytes` of a batch of MEMORY_BATCH, beyond weights, cached kernels
        and pictures.
    """
    rows = []
    for name, network in networks.items():
        macs = count_macs(network, size, elementwise=True)
        rows.append(
            {
                "name": name,
                "macs": macs.image,
                "generation_macs": macs.generation,
                "parameters": count_parameters(network),
                "baked_parameters": count_parameters(bake(network)),
                "peak_memory_bytes": _peak_memory(network, size),
            }
        )
    return pd.DataFrame(rows)


def measure_throughput(
    networks: Mapping[str, nn.Module],
    size: int,
    *,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] = THREADS,
    repeats: int = REPEATS,
) -> pd.DataFrame:
    """The rows of `network_throughputs`, with `name` in the place of `network`.

    Numbers of threads beyond the cores that this process may use are left out, which is said on one line; a GPU gets
    one number.
    """
    usable = [count for count in threads if count <= core_count()] or [1]
    if gpu_name():
        usable = usable[:1]
    elif told := left_out("number of threads", "more than this machine has cores", [*{*threads} - {*usable}]):
        print(told)
    rows = network_throughputs([*networks.values()], size=size, batches=batches, threads=usable, repeats=repeats)
    return rows.assign(name=rows["network"].map(dict(enumerate(networks)))).drop(columns="network")


@torch.inference_mode()
def _peak_memory(network: nn.Module, size: int) -> int:
    device = default_device()
    infer = partial(network.to(device), torch.randn(MEMORY_BATCH, 3, size, size, device=device))
    infer()  # leaves the kernels generated
    return peak_memory(infer, device)


def main() -> None:
    """Read the options, measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ops", default="depthwise,tvconv", help="operators (default: %(default)s)")
    parser.add_argument("--family", choices=FAMILIES, default="mobilenetv2")
    parser.add_argument("--widths", default="0.1", help="width multipliers (default: %(default)s)")
    parser.add_argument(
        "--side", type=at_least(1), default=96, help="side of the pictures in pixels (default: %(default)s)"
    )
    options = parser.parse_args()
    networks = {
        f"{op} x{width:g}": make_network(options.family, width, op, side=options.side, seed=0).eval()
        for width in numbers(options.widths)
        for op in names(options.ops)
    }
    costs = measure_costs(networks, options.side)
    print(f"{options.family} at {options.side}x{options.side} on {machine()}")
    for row in costs.itertuples():
        print(
            f"  {row.name}: {row.macs / 1e6:.2f} M MACs, {row.parameters / 1e6:.2f} M parameters, baked "
            f"{row.baked_parameters / 1e6:.2f} M, peak memory {row.peak_memory_bytes / 2**20:.1f} MiB"
        )
    rates = measure_throughput(networks, options.side)
    for count, here in rates.groupby("threads"):
        print(f"pictures in a second, {counted(count, 'thread')}")
        print(here.pivot(index="name", columns="batch", values="throughput").loc[[*networks]].round(1).to_string())


if __name__ == "__main__":
    run(main)
