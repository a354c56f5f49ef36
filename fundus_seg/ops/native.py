"""The CPU backend: `native.cpp`, compiled once on each machine, for its instructions, by its C++ compiler.

It reads and writes every operand once, in one parallel region. Where there is no compiler, `unavailable()` says why,
and the backend `portable` computes instead.

The library has a plain C interface, is compiled in seconds and called through ctypes. torch's own loader of extensions
would need ninja and setuptools where the package runs, and a killed build leaves a lock behind, for which every later
process waits for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fundus_seg.cache_folder import CACHE_VARIABLE, cache_folder, remove
from fundus_seg.digests import file_digest
from fundus_seg.errors import UsageError, one_line
from fundus_seg.ops.layout import empty_kernel_like, empty_map_like, is_channels_last
from fundus_seg.runs.atomic import flush_to_disk

SOURCE = Path(__file__).with_name("native.cpp")
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
LEVEL_VARIABLE = "FUNDUS_SEG_CPU_LEVEL"
_LEVELS: dict[str, tuple[str, ...]] = {
    "avx512": ("-march=x86-64-v4",),
    "avx2": ("-march=x86-64-v3",),
    "baseline": (),
}
"""The compiler's flags by level of instructions, best first; the last is the compiler's default (SSE2, NEON)."""
_WORTH_A_REGION = 2**18
"""Multiply-adds from which more than one thread is used, since short parallel regions stall on a busy machine."""
_PATIENCE_S = 120.0
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def supports(x: Tensor) -> bool:
    """Whether this backend computes with tensors of this device and dtype here.

    Raises:
        UsageError: as `level`.
    """
    return x.device.type == "cpu" and x.dtype in _DTYPES and unavailable() is None


def unavailable() -> str | None:
    """Why the library cannot be used on this machine, in one line; None if it can. The first call may compile it.

    Raises:
        UsageError: as `level`.
    """
    return _library(level())[1]


@functools.cache
def levels() -> tuple[str, ...]:
    """The levels of instructions that this machine has, best first: of "avx512", "avx2" and "baseline"."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    names = tuple(_LEVELS)
    return names[names.index(capability) if capability in names else -1 :]


def level() -> str:
    """The level of instructions that computes: $FUNDUS_SEG_CPU_LEVEL, or else the best that this machine has.

    Levels with fused multiply-adds (all but "baseline" on x86-64) give the same bits.

    Raises:
        UsageError: the variable names a level that there is not, or that this machine lacks.
    """
    name = os.environ.get(LEVEL_VARIABLE) or levels()[0]
    if name not in levels():
        raise UsageError(f"${LEVEL_VARIABLE}={name}: this machine has {', '.join(levels())}; set one of them, or none")
    return name


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
    library, _ = _library(level())
    assert library is not None
    sizes = (ctypes.c_int64 * 9)(*shape_in, *shape_out[2:], *geometry)
    threads = torch.get_num_threads() if out.numel() * k**2 >= _WORTH_A_REGION else 1
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (a, b, out))
    getattr(library, f"{name}_{_DTYPES[a.dtype]}")(*pointers, sizes, is_channels_last(a), threads)
    return out


@functools.cache
def _library(level: str) -> tuple[ctypes.CDLL | None, str | None]:
    """The library compiled for the level, or the reason why there is none, which is also warned of once."""
    try:
        return _loaded(level), None
    # RuntimeError: no home folder, hence no cache
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        reason = one_line(error)
        warnings.warn(f"kernels per position run on torch's operations, several times slower: {reason}", stacklevel=2)
        return None, reason


def _loaded(level: str) -> ctypes.CDLL:
    """The library from the cache folder, built if it is missing, and once more if it is damaged.

    Its name holds a hash of all that it depends on, then a hash of itself, by which a damaged one is told.

    Raises:
        OSError: there is no compiler, it fails, the cache folder cannot be written, or another user can write there.
    """
    cache, name = cache_folder(), _name(level)
    folder = cache / "compiled"
    for path in sorted(folder.glob(f"{name}-*.so")):
        with contextlib.suppress(_DamagedError):
            return _load(path, cache)
        remove(path)
    return _load(_compile(os.environ.get("CXX", "c++").split(), _flags(level), folder, name), cache)


def _flags(level: str) -> list[str]:
    return [*_FLAGS, *_LEVELS[level]]


def _name(level: str) -> str:
    """The library's name up to the hash of itself, with a hash of all that it depends on."""
    on = " ".join([platform.machine(), *platform.libc_ver(), *_flags(level)])
    return f"{SOURCE.stem}-{hashlib.sha256(SOURCE.read_bytes() + on.encode()).hexdigest()[:16]}"


class _DamagedError(OSError):
    """The library is not what the compiler wrote, or cannot be loaded."""


def _load(path: Path, cache: Path) -> ctypes.CDLL:
    """Load the file that was looked at, whatever stands at its path by then.

    Raises:
        _DamagedError: it is damaged.
        OSError: another user can write the file, or a folder from the cache folder down to it.
    """
    with path.open("rb") as file:
        for place, status in (
            (cache, cache.stat()),
            (path.parent, path.parent.stat()),
            (path, os.fstat(file.fileno())),
        ):
            others = _WRITABLE_BY_OTHERS
            if place == cache and _is_own_group(status.st_gid):
                others &= ~stat.S_IWGRP
            foreign = hasattr(os, "getuid") and status.st_uid not in (os.getuid(), 0)
            if foreign or status.st_mode & others:
                raise OSError(
                    f"another user can write {place}: take that permission away, or set ${CACHE_VARIABLE} to a folder "
                    "of your own"
                )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not path.stem.endswith(f"-{digest[:16]}"):
            raise _DamagedError(f"{path}: not what the compiler wrote")
        # The copy stays open: the loader takes a name that it has met before for the library that it has loaded before.
        opened = Path(f"/proc/self/fd/{os.dup(file.fileno())}")
        try:
            return ctypes.CDLL(str(opened if opened.exists() else path))
        except OSError as error:
            raise _DamagedError(f"{path}: cannot be loaded ({error})") from error


def _is_own_group(group: int) -> bool:
    """Whether it is the group of this user alone, which many systems let write what the user makes."""
    try:
        import grp
        import pwd

        user, entry = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(group)
    except (ImportError, KeyError):  # a system without groups, or an unknown user or group
        return False
    return entry.gr_name == user and set(entry.gr_mem) <= {user}


def _compile(compiler: list[str], flags: list[str], folder: Path, name: str) -> Path:
    """Compile the library into the folder; give its path, `name` and a hash of its content."""
    if not compiler or shutil.which(compiler[0]) is None:
        raise OSError(f"no C++ compiler: {compiler} is not there, set $CXX")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
            built = Path(scratch, "built.so")
            command = [*compiler, *flags, str(SOURCE), "-o", str(built)]
            subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
            flush_to_disk(built)
            for place in (folder, built):
                place.chmod(place.stat().st_mode & ~_WRITABLE_BY_OTHERS)
            return built.replace(folder / f"{name}-{file_digest(built)[:16]}.so")
    except subprocess.CalledProcessError as error:
        raise OSError(f"{' '.join([*compiler, *flags])} fails: {error.stderr[:200]}") from error
