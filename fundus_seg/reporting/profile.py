"""The table of what networks cost."""

from __future__ import annotations

import pandas as pd

from fundus_seg.reporting.table import Report, Table


def profile_table(frame: pd.DataFrame, *, size: int, batch: int, image_size: int, encoder: str, where: str) -> Report:
    """A row per operator; the title says what was measured, the notes what the numbers are and on which machine.

    Args:
        frame: as `fundus_seg.profiling.profile_frame` gives it, of networks that differ in their operators alone.
        size: height and width of the photographs.
        batch: photographs in a batch.
        image_size: height and width that the networks were built for.
        encoder: of the networks.
        where: the machine and what computed on it, for the notes.
    """
    rows = [
        (
            str(row["operator"]),
            str(row["parameters"]),
            str(row["baked_parameters"]),
            f"{row['macs'] / 1e6:.1f}",
            f"{row['kernel_macs'] / 1e6:.1f}",
            f"{row['latency_ms']:.2f}",
            f"{row['latency_iqr_ms']:.2f}",
            f"{row['peak_memory'] / 2**20:.1f}",
        )
        for row in frame.to_dict("records")
    ]
    photographs = f"{batch} photographs" if batch > 1 else "a photograph"
    networks = f"networks for {image_size}x{image_size}, encoder {encoder}, random weights"
    layout = Table(
        title=f"Inference on {photographs} of {size}x{size} pixels: {networks}",
        labels=("operator",),
        columns=(
            "params",
            "baked params",
            "MACs [M]",
            "kernel MACs [M]",
            "latency [ms]",
            "IQR [ms]",
            "peak memory [MiB]",
        ),
        rows=tuple(rows),
        notes=(
            "MACs: for each photograph; kernel MACs: once for a set of weights, however many photographs follow",
            "latency: of a batch, kernels generated before; median and interquartile range of "
            f"{frame['repeats'].iloc[0]} rounds",
            "peak memory: of tensors, beyond weights, kernels and photographs",
            where,
        ),
    )
    return Report(frame, layout)
