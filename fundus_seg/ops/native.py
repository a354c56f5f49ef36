"""The CPU backend: `native.cpp`, compiled once on each machine by its C++ compiler.

It reads and writes every operand once, in one parallel region. Where there is no compiler, `unavailable()` says why,
and the backend `portable` computes instead.

The library has a plain C interface, is compiled in seconds and called through ctypes. torch's own loader of extensions
would need ninja and setuptools where the package runs, and a killed build leaves a lock behind, for which every later
process waits for ever.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fundus_seg.cache_folder import cache_folder
from fundus_seg.errors import FundusSegError, one_line
from fundus_seg.ops.layout import empty_kernel_like, empty_map_like, is_channels_last
from fundus_seg.runs.atomic import atomic_path

SOURCE = Path(__file__).with_name("native.cpp")
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
_INSTRUCTIONS = {"AVX512": "-march=x86-64-v4", "AVX2": "-march=x86-64-v3"}
"""Compiler flag by CPU capability; other machines take the compiler's default."""
_WORTH_A_REGION = 2**18
"""Multiply-adds from which more than one thread is used, since short parallel regions stall on a busy machine."""
_PATIENCE_S = 120.0
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def supports(x: Tensor) -> bool:
    """Whether this backend computes with tensors of this device and dtype here."""
    return x.device.type == "cpu" and x.dtype in _DTYPES and unavailable() is None


def unavailable() -> str | None:
    """Why the library cannot be used on this machine, in one line; None if it can. The first call may compile it."""
    return _library()[1]


def forward(x: Tensor, weight: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps x (B, C, H, W), weight (C, k·k, h, w) -> (B, C, h, w)."""
    out = empty_map_like(x, weight.shape[2:])
    return _call("forward", x, weight, out, x.shape, out.shape, k, stride, dilation)


def grad_x(grad: Tensor, weight: Tensor, size: Sequence[int], k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), weight (C, k·k, h, w), size (H, W) -> (B, C, H, W)."""
    out = empty_map_like(grad, size)
    return _call("grad_x", grad, weight, out, out.shape, grad.shape, k, stride, dilation)


def grad_weight(grad: Tensor, x: Tensor, k: int, stride: int, dilation: int) -> Tensor:
    """Maps grad (B, C, h, w), x (B, C, H, W) -> (C, k·k, h, w)."""
    return _call("grad_weight", grad, x, empty_kernel_like(grad, k), x.shape, grad.shape, k, stride, dilation)


def _call(
    name: str,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    shape_in: torch.Size,
    shape_out: torch.Size,
    k: int,
    stride: int,
    dilation: int,
) -> Tensor:
    if out.numel() == 0:
        return out
    longest = max(shape_in[2:])  # beyond it a stride or a dilation changes nothing but the size of a buffer
    geometry = (k, min(stride, longest), min(dilation, longest))
    library, _ = _library()
    assert library is not None
    layout = "last" if is_channels_last(a) else "first"
    sizes = (ctypes.c_int64 * 9)(*shape_in, *shape_out[2:], *geometry)
    threads = torch.get_num_threads() if out.numel() * k**2 >= _WORTH_A_REGION else 1
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (a, b, out))
    getattr(library, f"{name}_{layout}_{_DTYPES[a.dtype]}")(*pointers, sizes, threads)
    return out


@functools.cache
def _library() -> tuple[ctypes.CDLL | None, str | None]:
    """The compiled library, or the reason why there is none, which is also warned of once."""
    try:
        return ctypes.CDLL(str(_compiled())), None
    # RuntimeError: no home folder, hence no cache
    except (OSError, RuntimeError, subprocess.TimeoutExpired, FundusSegError) as error:
        reason = one_line(error)
        warnings.warn(f"kernels per position run on torch's operations, several times slower: {reason}", stacklevel=2)
        return None, reason


def _compiled() -> Path:
    """The library's file in the cache folder, built if it is missing; its name holds a hash of all that it depends on.

    Raises:
        OSError: there is no compiler, it fails, or another user can write the file.
        RunError: the cache folder cannot be written.
    """
    instructions = _INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability())
    flags = [*_FLAGS, *([instructions] if instructions else [])]
    content = SOURCE.read_bytes() + " ".join([platform.machine(), *platform.libc_ver(), *flags]).encode()
    key = hashlib.sha256(content).hexdigest()[:16]
    path = cache_folder() / "compiled" / f"{SOURCE.stem}-{key}.so"
    if not path.exists():
        _compile(os.environ.get("CXX", "c++").split(), flags, path)
    for place in (path.parent, path):
        status = place.stat()
        foreign = hasattr(os, "getuid") and status.st_uid not in (os.getuid(), 0)
        if foreign or status.st_mode & _WRITABLE_BY_OTHERS:
            raise OSError(f"another user can write {place}: set $FUNDUS_SEG_CACHE to a folder of your own")
    return path


def _compile(compiler: list[str], flags: list[str], path: Path) -> None:
    if not compiler or shutil.which(compiler[0]) is None:
        raise OSError(f"no C++ compiler: {compiler} is not there, set $CXX")
    try:
        with atomic_path(path) as temporary:
            command = [*compiler, *flags, str(SOURCE), "-o", str(temporary)]
            subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
        for place in (path.parent, path):
            place.chmod(place.stat().st_mode & ~_WRITABLE_BY_OTHERS)
    except subprocess.CalledProcessError as error:
        raise OSError(f"{' '.join([*compiler, *flags])} fails: {error.stderr[:200]}") from error
