from __future__ import annotations

import ctypes
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference_ops import four_loops
from torch import Tensor

from fundus_seg.cache_folder import cache_folder
from fundus_seg.errors import UsageError
from fundus_seg.ops import dispatch, native, portable, translation_variant_conv2d
from fundus_seg.ops.layout import is_channels_last, kernel_in, map_in


@pytest.fixture(params=[*native.levels(), "portable"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs a test with each backend of the CPU, `native` at every level that this machine has; they need a compiler."""
    if request.param == "portable":
        with dispatch.using("portable"):
            yield
        return
    monkeypatch.setenv(native.LEVEL_VARIABLE, request.param)
    assert native.unavailable() is None
    with dispatch.using("native"):
        yield


def derivatives(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradients of both operands for an output gradient of fixed numbers."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = function(x, weight)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).bfloat16()
    return out.detach(), *torch.autograd.grad(out, (x, weight), grad.to(out.dtype))


def operands(
    k: int = 3, stride: int = 1, batch: int = 2, channels: int = 3, size: tuple[int, int] = (5, 4)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size_out = [(n - 1) // stride + 1 for n in size]
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, k * k, *size_out, generator=generator, dtype=torch.float64)
    return x, weight


TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float64: 1e-12}
SIZES = [(1, 1, (1, 1)), (1, 7, (9, 1)), (5, 19, (17, 3)), (4, 33, (13, 21)), (9, 70, (6, 6)), (4, 1040, (3, 4))]


class TestShapes:
    """Every geometry, size and layout, against the equation."""

    @pytest.mark.usefixtures("backend")
    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("k", [1, 3, 5])
    @pytest.mark.parametrize("stride", [1, 2, 3])
    @pytest.mark.parametrize("dilation", [1, 2, 6])
    def test_equals_four_loops(self, k: int, stride: int, dilation: int, channels_last: bool) -> None:
        operands_ = operands(k, stride)
        expected = derivatives(lambda x, weight: four_loops(x, weight, stride, dilation), *operands_)
        found = derivatives(
            lambda x, weight: translation_variant_conv2d(x, weight, stride=stride, dilation=dilation),
            map_in(operands_[0], channels_last),
            kernel_in(operands_[1], channels_last),
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)

    @pytest.mark.usefixtures("backend")
    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize(("batch", "channels", "size"), SIZES)
    @pytest.mark.parametrize(("k", "stride", "dilation"), [(3, 1, 1), (5, 2, 3)])
    @pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES.items())
    def test_every_size_dtype_and_layout(
        self,
        batch: int,
        channels: int,
        size: tuple[int, int],
        k: int,
        stride: int,
        dilation: int,
        dtype: torch.dtype,
        tolerance: float,
        channels_last: bool,
    ) -> None:
        x, weight = (tensor.to(dtype) for tensor in operands(k, stride, batch, channels, size))

        def convolve(x: Tensor, weight: Tensor) -> Tensor:
            return translation_variant_conv2d(x, weight, stride=stride, dilation=dilation)

        found = derivatives(convolve, map_in(x, channels_last), kernel_in(weight, channels_last))
        expected = derivatives(lambda x, weight: four_loops(x, weight, stride, dilation), x.double(), weight.double())
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == dtype
            error = (a.double() - b).abs().max()
            assert error <= tolerance * max(1.0, b.abs().max().item())
        if channels_last and min(*found[0].shape[1:]) > 1:
            assert is_channels_last(found[0])

    @pytest.mark.usefixtures("backend")
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_steps_beyond_the_map(self, channels_last: bool) -> None:
        """No buffer grows with a stride or a dilation that reads nothing."""
        x, weight = operands(size=(5, 4))
        x = map_in(x, channels_last)
        far = translation_variant_conv2d(x, kernel_in(weight, channels_last), dilation=10**9)
        torch.testing.assert_close(far, four_loops(x, weight, dilation=10**9))
        corner = kernel_in(weight[:, :, :1, :1], channels_last)
        wide = translation_variant_conv2d(x, corner, stride=10**9)
        torch.testing.assert_close(wide, four_loops(x, corner, stride=10**9))

    @pytest.mark.usefixtures("backend")
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_zero_images_and_what_is_not_a_number(self, dtype: torch.dtype) -> None:
        x, weight = (tensor.to(dtype) for tensor in operands(size=(6, 5)))
        assert translation_variant_conv2d(x[:0], weight).shape == (0, 3, 6, 5)
        x[0, 1, 2, 4] = torch.nan
        for channels_last in (False, True):
            bad = translation_variant_conv2d(map_in(x, channels_last), kernel_in(weight, channels_last)).isnan()
            assert bad.sum() == 6  # of its neighbours in the image, none in the row that follows in memory
            assert bad[0, 1, 1:4, 3:].all()

    @pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 3)])
    def test_constant_kernel_is_a_depthwise_convolution(self, stride: int, dilation: int) -> None:
        x, weight = operands(stride=stride, size=(9, 8))
        weight = weight[:, :, :1, :1].expand_as(weight)
        shared = weight[:, :, 0, 0].reshape(3, 1, 3, 3)
        torch.testing.assert_close(
            translation_variant_conv2d(x, weight, stride=stride, dilation=dilation),
            F.conv2d(x, shared, stride=stride, dilation=dilation, padding=dilation, groups=3),
        )

    @pytest.mark.usefixtures("backend")
    def test_any_memory_layout(self) -> None:
        """Operands and gradients that lie in no layout, or each in another, are copied first."""
        x, weight = operands(size=(6, 7))
        wide = torch.zeros(2, 3, 6, 14, dtype=x.dtype)
        wide[..., ::2] = x
        for a in (x, map_in(x, True), wide[..., ::2]):
            for b in (weight, kernel_in(weight, True), weight.transpose(2, 3).contiguous().transpose(2, 3)):
                torch.testing.assert_close(translation_variant_conv2d(a, b), translation_variant_conv2d(x, weight))
        (to_x,) = torch.autograd.grad(translation_variant_conv2d(x.requires_grad_(), weight).sum(), x)  # expanded
        torch.testing.assert_close(to_x, torch.autograd.grad(four_loops(x, weight).sum(), x)[0])


class TestGradients:
    @pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
    def test_first_derivatives(self, stride: int, dilation: int) -> None:
        x, weight = operands(stride=stride, channels=2)

        def convolve(x: Tensor, weight: Tensor) -> Tensor:
            return translation_variant_conv2d(x, weight, stride=stride, dilation=dilation)

        assert torch.autograd.gradcheck(convolve, (x.requires_grad_(), weight.requires_grad_()))

    @pytest.mark.usefixtures("backend")
    def test_second_derivatives(self) -> None:
        x, weight = operands(channels=2, size=(4, 3))
        assert torch.autograd.gradgradcheck(translation_variant_conv2d, (x.requires_grad_(), weight.requires_grad_()))

    @pytest.mark.parametrize("needing", ["x", "weight"])
    def test_keeps_only_what_the_needed_gradient_reads(self, needing: str) -> None:
        x, weight = operands()
        leaf, other = (x, weight) if needing == "x" else (weight, x)
        leaf.requires_grad_()
        out = translation_variant_conv2d(x, weight)
        assert out.grad_fn is not None
        saved = [tensor.data_ptr() for tensor in out.grad_fn.saved_tensors if tensor is not None]  # type: ignore[attr-defined]
        assert saved == [other.data_ptr()]
        out.sum().backward()
        assert leaf.grad is not None
        assert other.grad is None


class TestTransforms:
    """torch.func, torch.compile and torch.library."""

    def test_torch_func(self) -> None:
        """Per-sample gradients of the kernels, and mapping over each operand alone and over both."""
        x, weight = operands()
        both = torch.stack([weight, 2 * weight], dim=1)
        for dims, args in ((0, None), (x[:, None], weight)), ((None, 1), (x, both)), ((0, 1), (x[:, None], both)):
            mapped = torch.vmap(translation_variant_conv2d, dims)(*args)
            for n in range(2):
                one = (t if d is None else t.select(d, n) for t, d in zip(args, dims, strict=True))
                torch.testing.assert_close(mapped[n], translation_variant_conv2d(*one))

        def energy(weight: Tensor, image: Tensor) -> Tensor:
            return translation_variant_conv2d(image[None], weight).square().sum()

        per_sample = torch.vmap(torch.func.grad(energy), (None, 0))(weight, x)
        for image, grad in zip(x, per_sample, strict=True):
            torch.testing.assert_close(grad, torch.func.grad(energy)(weight, image))
        with pytest.raises(NotImplementedError, match="jvp"):
            torch.func.jvp(lambda x: translation_variant_conv2d(x, weight), (x,), (x,))

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_compiled_and_described_to_torch(self, channels_last: bool) -> None:
        x, weight = operands(stride=2, channels=4, size=(7, 6))
        x, weight = map_in(x, channels_last), kernel_in(weight, channels_last)
        grad = translation_variant_conv2d(x, weight, stride=2)
        torch.library.opcheck(dispatch.forward, (x, weight, 3, 2, 1))
        torch.library.opcheck(dispatch.grad_x, (grad, weight, [7, 6], 3, 2, 1))
        torch.library.opcheck(dispatch.grad_weight, (grad, x, 3, 2, 1))

        def convolve(x: Tensor, weight: Tensor) -> Tensor:
            return translation_variant_conv2d(x, weight, stride=2)

        compiled = torch.compile(convolve, backend="aot_eager", fullgraph=True)
        for a, b in zip(derivatives(compiled, x, weight), derivatives(convolve, x, weight), strict=True):
            assert torch.equal(a, b)
        assert convolve(x.to("meta"), weight.to("meta")).shape == grad.shape


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_rounded_once(self, dtype: torch.dtype) -> None:
        x, weight = (tensor.to(dtype) for tensor in operands(k=5, size=(16, 16)))
        exact = translation_variant_conv2d(x.double(), weight.double())
        out = translation_variant_conv2d(x, weight)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps / 2, atol=1e-4)

    def test_half_precision_gradients(self) -> None:
        x, weight = operands(batch=8, size=(8, 8))
        low = [tensor.bfloat16().requires_grad_() for tensor in (x, weight)]
        exact = [tensor.detach().double().requires_grad_() for tensor in low]
        for pair in (low, exact):
            translation_variant_conv2d(*pair).square().sum().backward()
        for a, b in zip(low, exact, strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert a.grad.dtype == torch.bfloat16
            assert F.cosine_similarity(a.grad.double().flatten(), b.grad.flatten(), dim=0) > 0.9999

    def test_autocast_casts_as_convolutions_do(self) -> None:
        x, weight = (tensor.float().requires_grad_() for tensor in operands())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = translation_variant_conv2d(x, weight)
            assert out.dtype == torch.bfloat16
            assert translation_variant_conv2d(x.bfloat16(), weight).dtype == torch.bfloat16
            assert translation_variant_conv2d(x.double(), weight.double()).dtype == torch.float64
        out.float().sum().backward()
        assert x.grad is not None
        assert weight.grad is not None
        assert x.grad.dtype == weight.grad.dtype == torch.float32

    @pytest.mark.usefixtures("backend")
    def test_threads_change_no_bit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, weight = (tensor.float() for tensor in operands(batch=5, channels=140, size=(9, 9)))
        monkeypatch.setattr(native, "_WORTH_A_REGION", 0)
        before = torch.get_num_threads()
        for channels_last in (False, True):
            args = map_in(x, channels_last), kernel_in(weight, channels_last)
            found = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.append(derivatives(translation_variant_conv2d, *args))
            torch.set_num_threads(before)
            for a, b in zip(*found, strict=True):
                assert torch.equal(a, b)

    @pytest.mark.usefixtures("backend")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_addresses_change_no_bit(self, dtype: torch.dtype, channels_last: bool) -> None:
        """Operands begin anywhere in their storage."""

        def moved(tensor: Tensor, by: int) -> Tensor:
            storage = torch.full((tensor.numel() + by,), torch.nan, dtype=dtype)
            there = storage[by:].as_strided(tensor.shape, tensor.stride(), by)
            return there.copy_(tensor)

        x, weight = (tensor.to(dtype) for tensor in operands(batch=5, channels=37, size=(7, 19)))
        x, weight = map_in(x, channels_last), kernel_in(weight, channels_last)
        expected = derivatives(translation_variant_conv2d, x, weight)
        for by in (1, 3, 8):
            found = derivatives(translation_variant_conv2d, moved(x, by), moved(weight, by))
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a, b)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_levels_and_layouts_change_no_bit(
        self, dtype: torch.dtype, stride: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All levels but x86-64's baseline, which has no fused multiply-add."""
        x, weight = (tensor.to(dtype) for tensor in operands(stride=stride, batch=6, channels=131, size=(8, 17)))
        found = []
        for level in native.levels()[:-1] or native.levels():
            monkeypatch.setenv(native.LEVEL_VARIABLE, level)
            for last in (False, True):
                operands_ = map_in(x, last), kernel_in(weight, last)
                found.append(derivatives(lambda x, w: translation_variant_conv2d(x, w, stride=stride), *operands_))
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                assert torch.equal(a, b)


class TestLevels:
    """Instructions of the processor, chosen by an environment variable."""

    def test_the_best_one_computes_unless_another_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(native.LEVEL_VARIABLE, raising=False)
        assert native.level() == native.levels()[0]
        monkeypatch.setenv(native.LEVEL_VARIABLE, "baseline")
        assert native.level() == native.levels()[-1] == "baseline"

    def test_each_has_a_library_of_its_own(self) -> None:
        libraries = {native._loaded(level)._handle for level in native.levels()}
        assert len(libraries) == len(native.levels())

    @pytest.mark.parametrize(
        ("capability", "levels"),
        [
            ("AVX512", ("avx512", "avx2", "baseline")),
            ("AVX2", ("avx2", "baseline")),
            ("DEFAULT", ("baseline",)),
            ("SVE256", ("baseline",)),
        ],
    )
    def test_one_that_the_machine_lacks_is_refused(
        self, capability: str, levels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(native, "levels", functools.cache(native.levels.__wrapped__))
        assert native.levels() == levels
        for name in {"avx512", "avx2", "neon"} - set(levels):
            monkeypatch.setenv(native.LEVEL_VARIABLE, name)
            with pytest.raises(UsageError) as refused:
                translation_variant_conv2d(*operands())
            assert str(refused.value) == (
                f"$FUNDUS_SEG_CPU_LEVEL={name}: this machine has {', '.join(levels)}; set one of them, or none"
            )


class TestBackends:
    def test_the_chosen_one_computes_within_the_block_and_in_every_thread(self) -> None:
        x, _ = operands()
        with ThreadPoolExecutor(1) as pool:
            assert dispatch.backend(x) is native
            with dispatch.using("portable"):
                assert pool.submit(dispatch.backend, x).result() is portable
                with dispatch.using("native"):
                    assert dispatch.backend(x) is native
                assert dispatch.backend(x) is portable
            assert dispatch.backend(x) is native

    def test_an_error_within_the_block_ends_the_choice(self) -> None:
        with pytest.raises(KeyError), dispatch.using("portable"):
            raise KeyError
        assert dispatch.backend(operands()[0]) is native

    def test_tensors_that_the_chosen_one_cannot_take_are_refused(self) -> None:
        x, weight = (tensor.half() for tensor in operands())
        assert dispatch.backend(x) is portable
        with (
            dispatch.using("native"),
            pytest.raises(ValueError, match=r"ops\.native does not compute with torch\.float16 on cpu here"),
        ):
            translation_variant_conv2d(x, weight)
        with pytest.raises(ValueError, match="unknown backend 'fast': pass one of native, portable"):
            dispatch.using("fast").__enter__()  # type: ignore[arg-type]


class TestCompiledLibrary:
    """The CPU backend is compiled once, from a compiler and into a folder that may not be there."""

    @pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
    def test_without_a_compiler_torch_computes(
        self, compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CXX", compiler)
        monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path))
        monkeypatch.setattr(native, "_library", functools.cache(native._library.__wrapped__))
        x, weight = operands()
        with pytest.warns(UserWarning, match="run on torch's operations, several times slower"):
            out = translation_variant_conv2d(x, weight)
        torch.testing.assert_close(out, four_loops(x, weight))
        assert dispatch.backend(x) is portable
        reason = native.unavailable()
        assert reason is not None
        assert compiler in reason
        assert "\n" not in reason
        assert not list(tmp_path.rglob("*.so*"))

    def test_a_library_in_the_cache_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert native.unavailable() is None
        monkeypatch.setenv("CXX", "no-such-compiler")
        monkeypatch.setattr(native, "_library", functools.cache(native._library.__wrapped__))
        assert native.unavailable() is None

    @pytest.fixture
    def library(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """The library of the best level, in a cache folder of the test's own."""
        assert native.unavailable() is None
        folder, name = cache_folder() / "compiled", native._name(native.level())
        shutil.copytree(folder, tmp_path / "compiled", ignore=lambda _, files: {f for f in files if name not in f})
        monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path))
        (library,) = tmp_path.rglob("*.so")
        return library

    def test_a_library_that_others_can_write_is_not_loaded(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path
    ) -> None:
        monkeypatch.setattr(native, "_library", functools.cache(native._library.__wrapped__))
        for place, bit in ((library, 0o020), (library.parent, 0o020), (tmp_path, 0o002)):
            mode = place.stat().st_mode
            assert not mode & 0o022
            place.chmod(mode | bit)
            native._library.cache_clear()
            with pytest.warns(UserWarning, match=f"another user can write {place}: take that permission away"):
                assert native.unavailable() is not None
            place.chmod(mode)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
    def test_a_library_of_another_user_is_not_loaded(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path
    ) -> None:
        monkeypatch.setattr(native, "_library", functools.cache(native._library.__wrapped__))
        for place in (library, library.parent, tmp_path):
            os.chown(place, 12345, -1)
            native._library.cache_clear()
            with pytest.warns(UserWarning, match=f"another user can write {place}"):
                assert native.unavailable() is not None
            os.chown(place, 0, -1)

    def test_the_file_that_was_looked_at_is_the_one_that_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path
    ) -> None:
        load = ctypes.CDLL

        def swapped(name: str) -> ctypes.CDLL:
            library.unlink()
            library.write_bytes(b"the attacker's")
            return load(name)

        monkeypatch.setattr(native.ctypes, "CDLL", swapped)
        assert native._loaded(native.level()).forward_float32

    @pytest.mark.parametrize("kept", [0, 5000, -1])
    def test_a_damaged_library_is_built_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path, kept: int
    ) -> None:
        whole = library.read_bytes()

        def compiled(*_: object) -> Path:
            library.write_bytes(whole)
            return library

        monkeypatch.setattr(native, "_compile", compiled)
        library.unlink()  # not written over: this process has it mapped
        library.write_bytes(whole[:kept])
        assert native._loaded(native.level()).forward_float32
        assert library.read_bytes() == whole


class TestRefusals:
    @pytest.mark.parametrize(
        ("x", "weight", "message"),
        [
            ((3, 5, 4), (3, 9, 5, 4), r"x must be \(B, C, H, W\)"),
            ((1, 3, 5, 4), (3, 8, 5, 4), r"weight has 8 taps: pass k\*k of them with an odd k"),
            ((1, 3, 5, 4), (3, 4, 5, 4), "weight has 4 taps"),
            ((1, 3, 5, 4), (2, 9, 5, 4), "x has 3 channels and weight 2"),
            ((1, 3, 5, 4), (3, 9, 4, 5), "kernels for 4x5 positions, but a 5x4 input at stride 1 has 5x4"),
        ],
    )
    def test_shapes_that_do_not_fit(self, x: tuple[int, ...], weight: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            translation_variant_conv2d(torch.zeros(x), torch.zeros(weight))

    def test_options_that_do_not_fit(self) -> None:
        x, weight = operands()
        with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
            translation_variant_conv2d(x, weight, stride=0)
        with pytest.raises(ValueError, match=r"x is torch.float64 and weight torch.float32: cast one"):
            translation_variant_conv2d(x, weight.float())
        with pytest.raises(ValueError, match="x is on meta and weight on cpu: move one of them"):
            translation_variant_conv2d(x.to("meta"), weight)
