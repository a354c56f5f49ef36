from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from fundus_seg.ops import triton_backend  # noqa: E402
from fundus_seg.ops.compared import ddf_triton  # noqa: E402
from fundus_seg.ops.layout import kernel_in, map_in  # noqa: E402

# What a thread reads of a channels_last map at once: 4 channels, but 2 of 8 bytes.
VECTORS = {torch.float32: "v4.b32", torch.float64: "v2.b64", torch.bfloat16: "v2.b32"}
# What a thread reads of a contiguous map at once: its 2 columns where they are aligned, one where a tap shifts them.
COLUMNS = {torch.float32: ("v2.b32", "b32"), torch.float64: ("v2.b64", "b64"), torch.bfloat16: ("b32", "b16")}

# A tap times the stride of a filter, in 32 bits.
NARROW_TAPS = re.compile(r"muli .*_tap\w* : i32")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["interpreted_triton.py", "interpreted_ddf.py"])
def test_equals_the_equation_in_the_interpreter(file: str) -> None:
    """In a process of its own: Triton chooses the interpreter once, when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]


class Driver:
    """Stands in for Triton's driver, so that launches are compiled where there is no GPU.

    capability: 80 is that of an A100, 90 of an H100 or H200.
    """

    def __init__(self, capability: int = 90) -> None:
        self.capability = capability

    def get_current_device(self) -> str:
        return f"sm_{self.capability}"  # Triton keeps what it has compiled by this name

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", self.capability, 32)


class Compiler:
    """Stands in for a kernel: compiles what would be launched, and keeps the code."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.compiled: list[Any] = []

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            self.compiled.append(self.kernel.warmup(*arguments, grid=grid, **options))

        return launch


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver())


def compiled(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    channels_last: bool,
    shape: tuple[int, int, int, int] = (16, 320, 16, 16),
) -> list[Any]:
    """The forward pass and the two gradients for maps of this shape, as Triton compiles them for their first launch."""
    compilers = [Compiler(triton_backend._gather_kernel), Compiler(triton_backend._grad_weight_kernel)]
    monkeypatch.setattr(triton_backend, "_gather_kernel", compilers[0])
    monkeypatch.setattr(triton_backend, "_grad_weight_kernel", compilers[1])
    x = map_in(torch.empty(shape, dtype=dtype, device="meta"), channels_last)
    weight = kernel_in(torch.empty((shape[1], 9, *shape[2:]), dtype=dtype, device="meta"), channels_last)
    triton_backend.forward(x, weight, 3, 1, 1)
    triton_backend.grad_x(x, weight, shape[2:], 3, 1, 1)
    triton_backend.grad_weight(x, x, 3, 1, 1)
    return [kernel for compiler in compilers for kernel in compiler.compiled]


def global_accesses(kernel: Any) -> set[str]:
    """Each kind of access to the GPU's memory: loads and stores, and atomics if there were any."""
    return set(re.findall(r"\b((?:ld|st|atom|red)\.global[\w.]*)", kernel.asm["ptx"]))


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", VECTORS)
def test_compiles_to_vector_accesses_of_channels(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in compiled(monkeypatch, dtype, channels_last=True):
        assert global_accesses(kernel) == {f"ld.global.{VECTORS[dtype]}", f"st.global.{VECTORS[dtype]}"}


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", COLUMNS)
def test_compiles_to_accesses_of_two_columns_or_one(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    both, one = COLUMNS[dtype]
    for kernel in compiled(monkeypatch, dtype, channels_last=False):
        assert global_accesses(kernel) == {f"ld.global.{both}", f"ld.global.{one}", f"st.global.{both}"}


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_threads_of_a_warp_lie_along_what_is_contiguous(
    channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not along the images, where each would read from another place, and sums over them would pass between threads."""
    for kernel in compiled(monkeypatch, torch.float32, channels_last):
        assert set(re.findall(r"threadsPerWarp = (\[\d+, \d+\])", kernel.asm["ttgir"])) == {"[1, 32]"}
        assert "shfl" not in kernel.asm["ptx"] and kernel.metadata.shared == 0


@pytest.mark.usefixtures("hopper")
def test_strides_of_large_tensors_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in compiled(monkeypatch, torch.float32, channels_last=False, shape=(2, 3, 2**15, 2**15)):
        assert kernel.src.signature["source_b"] == "i64"
        assert not NARROW_TAPS.search(kernel.asm["ttir"])


DDF_KERNELS = ("_gather_kernel", "_grad_filters_kernel")


def compiled_ddf(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, channels_last: bool, shape: tuple[int, int, int, int]
) -> list[Any]:
    """The passes of DDF's filter for maps of this shape: forward, gradient of x, gradients of the filters."""
    compilers = [Compiler(getattr(ddf_triton, name)) for name in DDF_KERNELS]
    for name, compiler in zip(DDF_KERNELS, compilers, strict=True):
        monkeypatch.setattr(ddf_triton, name, compiler)
    shapes = (shape, (shape[0], 9, *shape[2:]), (*shape[:2], 9))
    x, spatial, channel = (torch.empty(each, dtype=dtype, device="meta") for each in shapes)
    x = map_in(x, channels_last)
    ddf_triton.forward(x, spatial, channel, 3, 1, 1)
    ddf_triton.backward(x, x, spatial, channel, 3, 1, 1)
    return [kernel for compiler in compilers for kernel in compiler.compiled]


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("capability", "dtype"), [(80, torch.bfloat16), (90, torch.bfloat16), (90, torch.float32), (90, torch.float64)]
)
def test_ddf_compiles_to_wide_accesses_without_atomics(
    capability: int, dtype: torch.dtype, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(capability))
    *gathers, filters = compiled_ddf(monkeypatch, dtype, channels_last, (16, 1920, 16, 16))
    assert len(gathers) == 2
    for kernel in (*gathers, filters):
        assert f".target sm_{capability}" in kernel.asm["ptx"] and kernel.asm["cubin"]
        assert not [access for access in global_accesses(kernel) if not access.startswith(("ld.", "st."))]
    # A thread of a map that is channels last has 16 bytes of channels; one of another map two columns.
    wide = {torch.bfloat16: "v4.b32", torch.float32: "v4.b32", torch.float64: "v2.b64"}[dtype]
    for kernel in gathers:
        stores = {access for access in global_accesses(kernel) if access.startswith("st.")}
        assert stores == {f"st.global.{wide if channels_last else COLUMNS[dtype][0]}"}
        # No thread needs what another one holds.
        assert "shfl" not in kernel.asm["ptx"] and kernel.metadata.shared == 0


@pytest.mark.usefixtures("hopper")
def test_strides_of_large_tensors_are_wide_in_ddf(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in compiled_ddf(monkeypatch, torch.float32, channels_last=False, shape=(2, 3, 2**15, 2**15)):
        assert kernel.src.signature["source_b"] == "i64"
        assert not NARROW_TAPS.search(kernel.asm["ttir"])
