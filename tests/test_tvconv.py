from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fundus_seg.ops import TVConv2d, translation_variant_conv2d
from fundus_seg.ops.layout import map_in


def small(**options: Any) -> TVConv2d:
    torch.manual_seed(0)
    return TVConv2d(3, (6, 5), generator_channels=4, generator_layers=1, **options)


def varied(**options: Any) -> TVConv2d:
    """With kernels that differ from place to place, as after training."""
    layer = small(**options)
    torch.nn.init.normal_(layer.affinity_maps)
    return layer


def images(height: int = 6, width: int = 5) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def fresh_kernel(layer: TVConv2d) -> torch.Tensor:
    """Recording gradients makes it generate."""
    with torch.enable_grad():
        return copy.deepcopy(layer).kernel().detach()


def step(layer: TVConv2d, **options: Any) -> None:
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, **options)
    with torch.enable_grad():
        layer(images()).square().sum().backward()
    optimizer.step()


def load(layer: TVConv2d, **options: bool) -> None:
    layer.load_state_dict({key: 2 * value + 1 for key, value in layer.state_dict().items()}, **options)


def write_data(layer: TVConv2d) -> None:
    layer.affinity_maps.data[0, 0, 0] = 7
    layer.drop_kernel_cache()


CHANGES: dict[str, Callable[[TVConv2d], object]] = {
    "load_state_dict": load,
    "load_state_dict by assignment": lambda layer: load(layer, assign=True),
    "optimizer step": step,
    "foreach optimizer step": lambda layer: step(layer, foreach=True),
    "fused optimizer step": lambda layer: step(layer, fused=True),
    "write in place": lambda layer: layer.generator[-1].weight.mul_(2),  # type: ignore[operator]
    "another parameter": lambda layer: setattr(layer, "affinity_maps", torch.nn.Parameter(torch.rand(4, 6, 5))),
    "dtype there and back": lambda layer: layer.bfloat16().float(),
    "write that is not counted": write_data,
}


class TestShapes:
    @pytest.mark.parametrize("stride", [1, 2])
    def test_applies_its_kernel(self, stride: int) -> None:
        layer = TVConv2d(3, (6, 5), kernel_size=5, stride=stride, generator_channels=4)
        x = images(6 * stride, 5 * stride)
        assert layer.kernel().shape == (3, 25, 6, 5)
        torch.testing.assert_close(layer(x), translation_variant_conv2d(x, layer.kernel(), stride=stride))
        assert layer(x).shape == (2, 3, 6, 5)

    def test_parameters_in_the_order_of_the_released_code(self) -> None:
        layer = TVConv2d(5, (7, 6))
        block = [(64, 64, 3, 3), (64, 7, 6), (64, 7, 6)]
        first = [(64, 4, 3, 3), (64, 7, 6), (64, 7, 6)]
        assert [tuple(p.shape) for p in layer.parameters()] == [
            (4, 7, 6),
            *first,
            *block,
            *block,
            *block,
            (45, 64, 3, 3),
        ]
        assert next(name for name, _ in layer.named_parameters()) == "affinity_maps"

    def test_prints_what_it_is(self) -> None:
        assert "TVConv2d(\n  3, size=(6, 5), kernel_size=3, stride=1, resample='bilinear'" in repr(
            small(resample="bilinear")
        )


class TestStart:
    """Where training starts from."""

    def test_affinities_and_norms(self) -> None:
        layer = TVConv2d(3, (6, 6))
        assert (layer.affinity_maps == 1).all()
        norms = [module for module in layer.modules() if isinstance(module, torch.nn.LayerNorm)]
        assert len(norms) == 4
        assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)

    def test_kernels_have_an_rms_near_one(self) -> None:
        torch.manual_seed(0)
        with torch.no_grad():
            power = [TVConv2d(64, (16, 16)).kernel().square().mean() for _ in range(12)]
        assert 0.9 < torch.stack(power).mean().sqrt() < 1.05

    def test_a_depthwise_convolution_five_positions_from_the_border(self) -> None:
        """Zero padding enters B once per 3x3 convolution, of which there are five."""
        torch.manual_seed(0)
        with torch.no_grad():
            kernel = TVConv2d(8, (16, 14)).kernel()
        centre = kernel[:, :, 8:9, 7:8]
        differs = ~torch.isclose(kernel, centre, rtol=1e-4, atol=1e-5).all(dim=1).all(dim=0)
        inside = torch.zeros(16, 14, dtype=torch.bool)
        inside[5:-5, 5:-5] = True
        assert torch.equal(differs, ~inside)
        torch.testing.assert_close(kernel[:, :, 5:-5, 5:-5], centre.expand(-1, -1, 6, 4), rtol=1e-4, atol=1e-5)
        outer, middle = kernel[:, :, 0], centre[:, :, 0].expand(-1, -1, 14)
        assert (outer - middle).norm() > 0.5 * middle.norm()


class TestGradients:
    def test_every_parameter_learns(self) -> None:
        layer = small()
        layer(images()).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())

    @pytest.mark.parametrize("batch", [1, 7])
    def test_the_kernel_is_generated_once_a_pass_and_is_the_plain_formulation(self, batch: int) -> None:
        layer, made = small(), []
        layer.generator.register_forward_hook(lambda *_: made.append(1))
        x = torch.randn(batch, 3, 6, 5)
        layer(x).sum().backward()
        assert len(made) == 1
        plain = layer.affinity_maps[None]
        for block in layer.generator:
            plain = block(plain)
        assert torch.equal(layer.kernel(), plain.reshape(3, 9, 6, 5))

    def test_autocast_generates_in_the_dtype_of_the_parameters(self) -> None:
        layer, x = small(), images()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(layer.kernel(), fresh_kernel(layer))
            out = layer(x)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)


class TestCache:
    def test_cached_equals_uncached(self) -> None:
        layer, x = small().eval(), images()
        recorded = layer(x)
        with torch.no_grad():
            first, second = layer(x), layer(x)
            assert layer.kernel() is layer.kernel()
        assert torch.equal(first, recorded)
        assert torch.equal(second, recorded)
        with torch.inference_mode():
            assert torch.equal(layer(x), recorded)

    def test_none_while_training_or_recording(self) -> None:
        layer = small()
        with torch.no_grad():
            assert layer.kernel() is not layer.kernel()
        layer.eval()
        assert layer.kernel() is not layer.kernel()
        assert layer.kernel().requires_grad
        with torch.inference_mode():
            made_there = small().eval()
            assert made_there.kernel() is not made_there.kernel()

    @pytest.mark.parametrize("change", CHANGES)
    def test_dies_on(self, change: str) -> None:
        layer = small().eval()
        torch.manual_seed(2)
        torch.nn.init.normal_(layer.generator[0][1].weight)  # type: ignore[index]
        with torch.no_grad():
            before = layer.kernel()
            CHANGES[change](layer)
            after = layer.kernel()
        assert not torch.equal(after, before)
        assert torch.equal(after, fresh_kernel(layer))

    def test_follows_a_dtype_move(self) -> None:
        layer = small().eval()
        with torch.no_grad():
            layer(images())
            assert torch.nn.Sequential(layer).double()(images().double()).dtype == torch.float64

    def test_training_drops_it_and_evaluation_keeps_it(self) -> None:
        layer = small().eval()
        with torch.no_grad():
            kept = layer.kernel()
            assert layer.eval().kernel() is kept
            layer.train()
            layer.affinity_maps.data.mul_(3)
            layer.affinity_maps.data[0] = 0
            assert not torch.equal(layer.eval().kernel(), kept)

    def test_is_never_stored(self) -> None:
        layer = small().eval()
        empty, keys = len(pickle.dumps(layer)), layer.state_dict().keys()
        with torch.no_grad():
            kernel = layer.kernel()
            assert layer.state_dict().keys() == keys
            assert len(pickle.dumps(layer)) == empty
            for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
                assert twin.kernel() is not kernel
                assert torch.equal(twin.kernel(), kernel)
            assert layer.kernel() is kernel

    def test_a_kernel_for_each_dtype_and_layout(self) -> None:
        layer = small().eval()
        x = images()
        expected = layer(x)
        with torch.no_grad():
            for channels_last in (False, True, False):
                torch.testing.assert_close(layer(map_in(x, channels_last)), expected)
            assert layer._cached is not None
            assert [kernel.stride(0) == 1 for kernel in layer._cached.kernels.values()] == [True, False]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                torch.testing.assert_close(layer(x).float(), expected, rtol=0.05, atol=0.05)
            assert [kernel.dtype for kernel in layer._cached.kernels.values()].count(torch.bfloat16) == 1
            assert layer.kernel().is_contiguous()
            with pytest.raises(ValueError, match=r"x is torch.float64 and weight torch.float32: cast one"):
                layer(x.double())

    def test_a_kernel_for_each_size(self) -> None:
        layer = varied(resample="bilinear").eval()
        with torch.no_grad():
            own, larger, smaller = layer.kernel(), layer.kernel((9, 7)), layer.kernel((3, 3))
            assert layer.kernel() is own
            assert layer.kernel((9, 7)) is larger
            assert layer.kernel((3, 3)) is smaller
            layer.affinity_maps.mul_(2)
            layer.affinity_maps[0] = 0
            assert not torch.equal(layer.kernel((9, 7)), larger)
            assert not torch.equal(layer.kernel((3, 3)), smaller)

    def test_the_least_recently_used_size_is_dropped(self) -> None:
        """Room for the own kernel (6x5) and two of 4x4, 27 kernels' channels of 4 bytes a position."""
        layer = varied(resample="bilinear", kernel_cache_bytes=27 * 4 * (30 + 16 + 16)).eval()
        with torch.no_grad():
            own, first, second = layer.kernel(), layer.kernel((4, 4)), layer.kernel((2, 8))
            assert layer.kernel((4, 4)) is first
            third = layer.kernel((8, 2))  # made from the own kernel, which that makes recently used
            assert layer.kernel() is own
            assert layer.kernel((4, 4)) is first
            assert layer.kernel((8, 2)) is third
            assert layer.kernel((2, 8)) is not second

    def test_the_own_kernel_is_kept_whatever_the_bound(self) -> None:
        layer = varied(kernel_cache_bytes=1).eval()
        with torch.no_grad():
            assert layer.kernel() is layer.kernel()

    def test_threads_may_share_a_module(self) -> None:
        layer = small(resample="bilinear", kernel_cache_bytes=20_000).eval()
        sizes = [(6 + n, 5 + n) for n in range(6)]
        with torch.no_grad():
            expected = {size: layer(images(*size)) for size in sizes}

        def pass_through(number: int) -> bool:
            size = sizes[number % len(sizes)]
            with torch.set_grad_enabled(number % 7 == 0):
                return torch.equal(layer(images(*size)).detach(), expected[size])

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(pass_through, range(200)))


class TestResampling:
    @pytest.mark.parametrize("size", [(12, 9), (6, 9), (3, 2), (4, 11), (1, 1)])
    def test_interpolates_the_kernel(self, size: tuple[int, int]) -> None:
        layer, x = varied(resample="bilinear"), images(*size)
        kernel = F.interpolate(layer.kernel(), size, mode="bilinear", align_corners=False, antialias=True)
        torch.testing.assert_close(layer(x), translation_variant_conv2d(x, kernel))
        with torch.no_grad():
            assert torch.equal(layer.eval()(x), layer.train()(x))

    def test_the_own_size_is_not_resampled(self) -> None:
        layer = varied(resample="bilinear")
        assert torch.equal(layer(images()), varied()(images()))
        assert torch.equal(layer.kernel((6, 5)), layer.kernel())

    def test_shrinking_by_two_averages_with_a_triangle(self) -> None:
        """Antialiased, a kernel between two old ones weighs four of them 1:3:3:1; at the border 3:3:1."""
        layer = varied(resample="bilinear")
        kernel = layer.kernel()
        shrunk = layer.kernel((3, 5))
        torch.testing.assert_close(
            shrunk[:, :, 1], (kernel[:, :, 1] + 3 * kernel[:, :, 2] + 3 * kernel[:, :, 3] + kernel[:, :, 4]) / 8
        )
        torch.testing.assert_close(shrunk[:, :, 0], (3 * kernel[:, :, 0] + 3 * kernel[:, :, 1] + kernel[:, :, 2]) / 7)

    @pytest.mark.parametrize("size", [(9, 7), (4, 3), (3, 8)])
    def test_resampled_kernels_learn_to_the_same_bits(self, size: tuple[int, int]) -> None:
        def gradients() -> list[torch.Tensor]:
            layer = varied(resample="bilinear")
            layer(images(*size)).square().sum().backward()
            return [p.grad for p in layer.parameters() if p.grad is not None]

        torch.use_deterministic_algorithms(True)
        try:
            first, second = gradients(), gradients()
        finally:
            torch.use_deterministic_algorithms(False)
        assert len(first) == len(list(small().parameters()))
        assert all(torch.equal(a, b) and a.abs().sum() > 0 for a, b in zip(first, second, strict=True))

    def test_gradient_is_that_of_the_numbers(self) -> None:
        layer = varied(resample="bilinear").double()
        torch.autograd.gradcheck(lambda x: layer(x), images(4, 9).double().requires_grad_())
        maps = layer.affinity_maps.detach().clone().requires_grad_()
        torch.autograd.gradcheck(
            lambda a: torch.func.functional_call(layer, {"affinity_maps": a}, (images(4, 9).double(),)), maps
        )

    @pytest.mark.parametrize("size", [(9, 7), (4, 3)])
    def test_in_bfloat16(self, size: tuple[int, int]) -> None:
        layer, x = varied(resample="bilinear"), images(*size)
        expected = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer.kernel(size).dtype == torch.float32
            torch.testing.assert_close(layer(x).float(), expected, rtol=0.05, atol=0.05)
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


class TestRefusals:
    def test_another_size(self) -> None:
        layer = TVConv2d(2, (16, 16), generator_channels=4)
        with pytest.raises(
            ValueError, match=r"built for 16x16 feature maps, got 50x50: pass size=\(50, 50\), or resample="
        ):
            layer(torch.zeros(1, 2, 50, 50))
        with pytest.raises(ValueError, match="got 16x20"):
            layer(torch.zeros(1, 2, 16, 20))
        with pytest.raises(ValueError, match="got 8x8"):
            TVConv2d(2, (16, 16), stride=2, generator_channels=4)(torch.zeros(1, 2, 16, 16))

    def test_a_kernel_over_the_bound_before_it_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = varied(resample="bilinear", kernel_cache_bytes=27 * 4 * 100)
        assert layer(images(10, 10)).shape == (2, 3, 10, 10)
        monkeypatch.setattr(F, "interpolate", None)
        for context in (torch.enable_grad(), torch.no_grad()):
            with context, pytest.raises(MemoryError, match=r"needs 10,908 bytes of kernels for 101x1 feature maps"):
                layer.eval()(images(101, 1))

    def test_a_photograph_of_4000_pixels_a_side(self) -> None:
        layer = TVConv2d(1920, (16, 16), generator_channels=1, generator_layers=0, resample="bilinear").eval()
        expected = r"4,320,000,000 bytes .* 250x250 feature maps, more than kernel_cache_bytes=1,073,741,824"
        with torch.no_grad(), pytest.raises(MemoryError, match=expected):
            layer.kernel((250, 250))

    def test_options_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match="kernel_size must be odd, got 4: pass 5"):
            TVConv2d(2, (4, 4), kernel_size=4)
        with pytest.raises(ValueError, match="unknown resample 'cubic': pass 'bilinear' or None"):
            TVConv2d(2, (4, 4), resample="cubic")  # type: ignore[arg-type]
