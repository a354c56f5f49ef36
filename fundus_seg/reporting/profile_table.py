"""The printed table of what `fundus_seg.profiling.profile` measured."""

from __future__ import annotations

import pandas as pd

from fundus_seg.errors import counted
from fundus_seg.reporting.table import Report, Table


def profile_table(profiles: pd.DataFrame) -> Report:
    """One row per operator; the title says what was measured, the notes how and on which machine.

    The frame is `profiles`, whose column `op` is named `operator`, as in other reports.

    Args:
        profiles: what `fundus_seg.profiling.profile` returns, for networks that differ in their operators alone.
    """
    texts = cost_texts(profiles)
    shared = profiles.iloc[0]
    photographs = counted(shared["batch"], "photograph")
    side, built_for = shared["size"], shared["image_size"]
    layout = Table(
        title=f"Inference on {photographs} of {side}x{side} pixels: networks for {built_for}x{built_for}, "
        f"encoder {shared['encoder']}, random weights",
        labels=("operator",),
        columns=tuple(texts),
        rows=tuple(zip(profiles["op"], *texts.values(), strict=True)),
        notes=cost_notes(profiles),
    )
    return Report(profiles.rename(columns={"op": "operator"}), layout)


def cost_texts(profiles: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns of a printed table of costs, by heading.

    Args:
        profiles: what `fundus_seg.profiling.profile` returns.
    """
    trained = profiles["trained_parameters"]
    return {
        "params": profiles["parameters"].map(str),
        **({"trained params": trained.map(str)} if (trained < profiles["parameters"]).any() else {}),
        "baked params": profiles["baked_parameters"].map(str),
        "MACs [M]": (profiles["macs"] / 1e6).map("{:.1f}".format),
        "kernel MACs [M]": (profiles["generation_macs"] / 1e6).map("{:.1f}".format),
        "latency [ms]": (1e3 * profiles["latency_s"]).map("{:.2f}".format),
        "IQR [ms]": (1e3 * (profiles["latency_q3_s"] - profiles["latency_q1_s"])).map("{:.2f}".format),
        "peak memory [MiB]": (profiles["peak_memory_bytes"] / 2**20).map("{:.1f}".format),
    }


def cost_notes(profiles: pd.DataFrame) -> tuple[str, ...]:
    """What the columns of `cost_texts` are, and which machine they were measured on."""
    shared = profiles.iloc[0]
    return (
        "MACs: for each photograph; kernel MACs: once for a set of weights, however many photographs follow",
        f"latency: of a batch, kernels generated before; median and interquartile range of {shared['rounds']} rounds",
        "peak memory: of tensors, beyond weights, kernels and photographs",
        f"{shared['machine']}; kernels per position: {shared['backend']}",
    )
