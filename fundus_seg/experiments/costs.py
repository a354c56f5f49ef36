"""What the networks of an experiment cost, measured once on each machine and kept beside the runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fundus_seg.cores import core_count
from fundus_seg.digests import short_hash
from fundus_seg.errors import RunError
from fundus_seg.experiments.grid_run import GridRun
from fundus_seg.hardware import gpu_name, machine
from fundus_seg.profiling import computing_with, profile, throughputs
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.atomic import atomic_path, frame_csv
from fundus_seg.version import __version__

BATCHES = (1, 2, 4, 8, 16)
"""Numbers of photographs in a batch that are tried for the best throughput."""
THREADS = (1, 2, 4)
"""Numbers of CPU threads that are tried for it, as far as there are cores."""
_REPEATS = 3


def measure_costs(
    runs: Sequence[GridRun],
    out: Path,
    *,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """The costs of inference of each column's network, side by side in this process, with random weights.

    Networks that see photographs of one size are measured together and take turns. What was measured lies in
    `costs/` below `out`, a CSV file for each machine, version and set of networks; the same call reads it again.
    Columns that have no network, since none of their runs could make it, are left out.

    Args:
        runs: those of the experiment, at least one of them with a network.
        out: the folder of all runs.
        progress: told how far the measurement is.

    Returns:
        A row for each column: `name`, its operator and recipe; `column`, its label; the columns of
        `fundus_seg.profiling.profile`, of one photograph and the most threads that are tried; `throughput`, the most
        photographs in a second, with the `best_batch` and `best_threads` that it was reached with, of the
        `tried_batches` and `tried_threads`.

    Raises:
        FundusSegError: memory does not suffice, or a kept file cannot be read or written.
    """
    together: dict[tuple[int, bool], dict[str, dict[str, Any]]] = {}
    columns = {}
    for run in (each for each in runs if each.folder.config.exists()):  # which is written when the network is made
        spec, frozen = run.config.network_spec(), run.config.model.freeze == "encoder"
        network = short_hash([spec, frozen])
        columns[run.operator] = {"name": run.operator, "column": run.label, "network": network}
        together.setdefault((spec["image_size"], frozen), {})[network] = spec
    frames = [
        _kept(out, specs, size=size, frozen=frozen, progress=progress) for (size, frozen), specs in together.items()
    ]
    named = pd.DataFrame([*columns.values()])
    return named.merge(pd.concat(frames), on="network", validate="many_to_one").drop(columns="network")


def _kept(
    out: Path,
    specs: dict[str, dict[str, Any]],
    *,
    size: int,
    frozen: bool,
    progress: Progress,
) -> pd.DataFrame:
    """The costs of some networks: as they were measured here before, or else measured now and written."""
    threads = [1] if gpu_name() else [count for count in THREADS if count <= core_count()]
    with computing_with(threads[-1]):
        key = [__version__, machine(), core_count(), size, sorted(specs), [*BATCHES], threads, _REPEATS]
        path = out / "costs" / f"{short_hash(key)}.csv"
        if path.exists():
            return _read(path, specs)
        found = profile([*specs.values()], size=size, frozen=frozen, repeats=4 * _REPEATS, progress=progress)
    measured = throughputs(
        [*specs.values()], size=size, batches=BATCHES, threads=threads, repeats=_REPEATS, progress=progress
    )
    best = measured.loc[measured.groupby("network")["throughput"].idxmax()].reset_index(drop=True)
    found = found.assign(
        network=[*specs],
        throughput=best["throughput"],
        best_batch=best["batch"],
        best_threads=best["threads"],
        tried_batches=" ".join(map(str, BATCHES)),
        tried_threads=" ".join(map(str, threads)),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(frame_csv(found), "utf8")
    return _read(path, specs)


def _read(path: Path, networks: Collection[str]) -> pd.DataFrame:
    texts = dict.fromkeys(("network", "tried_batches", "tried_threads"), str)
    try:
        found = pd.read_csv(path, keep_default_na=False, dtype=texts)
        if sorted(found["network"]) != sorted(networks) or found.isin([math.nan, ""]).any(axis=None):
            raise ValueError("cut")
        return found
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: cannot be read; remove it, and the same command measures again") from error
