"""The hardware of this machine, and which settings are fast on it."""

from __future__ import annotations

from typing import Any

import torch

from fundus_seg.builtins import Precision
from fundus_seg.config import MachineSettings
from fundus_seg.errors import counted
from fundus_seg.runs.provenance import processor


def gpu_name() -> str | None:
    """The GPU that torch computes on; None where it computes on the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def default_device() -> torch.device:
    """Where networks compute unless the caller says otherwise: on the first GPU, or else on the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """The GPU, or else the processor with torch's threads, and torch's version, in one line."""
    threads = torch.get_num_threads()
    computes = gpu_name() or f"{processor()}, {counted(threads, 'thread')}"
    return f"{computes}, torch {torch.__version__}"


def machine_choices() -> MachineSettings:
    """What is fast on this machine, for the settings of `train` that are left to it.

    bf16 where the hardware has instructions for it; elsewhere it is emulated, and slower than float32. Channels last
    everywhere: convolutions of either precision prefer it. `benchmarks/cpu.md` has the measurements.
    """
    precision: Precision = "bf16" if _computes_in_bf16() else "fp32"
    return MachineSettings(threads=torch.get_num_threads(), precision=precision, channels_last=True)


def _computes_in_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions of torch
    return any(capabilities.get(feature) for feature in ("avx512_bf16", "amx_bf16"))
