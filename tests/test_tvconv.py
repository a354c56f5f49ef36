from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fundus_seg.ops import TVConv2d, translation_variant_conv2d


def small(**options: Any) -> TVConv2d:
    torch.manual_seed(0)
    return TVConv2d(3, (6, 5), generator_channels=4, generator_layers=1, **options)


def images(height: int = 6, width: int = 5) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def fresh_kernel(layer: TVConv2d) -> torch.Tensor:
    """Recording gradients makes it generate."""
    with torch.enable_grad():
        return copy.deepcopy(layer).kernel().detach()


@pytest.mark.parametrize("stride", [1, 2])
def test_applies_its_kernel(stride: int) -> None:
    layer = TVConv2d(3, (6, 5), kernel_size=5, stride=stride, generator_channels=4)
    x = images(6 * stride, 5 * stride)
    assert layer.kernel().shape == (3, 25, 6, 5)
    torch.testing.assert_close(layer(x), translation_variant_conv2d(x, layer.kernel(), stride=stride))
    assert layer(x).shape == (2, 3, 6, 5)


def test_parameters_in_the_order_of_the_released_code() -> None:
    layer = TVConv2d(5, (7, 6))
    block = [(64, 64, 3, 3), (64, 7, 6), (64, 7, 6)]
    first = [(64, 4, 3, 3), (64, 7, 6), (64, 7, 6)]
    assert [tuple(p.shape) for p in layer.parameters()] == [(4, 7, 6), *first, *block, *block, *block, (45, 64, 3, 3)]
    assert next(name for name, _ in layer.named_parameters()) == "affinity_maps"


def test_initialisation() -> None:
    layer = TVConv2d(3, (6, 6))
    assert (layer.affinity_maps == 1).all()
    norms = [module for module in layer.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 4
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


def test_kernels_start_with_an_rms_near_one() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        power = [TVConv2d(64, (16, 16)).kernel().square().mean() for _ in range(12)]
    assert 0.9 < torch.stack(power).mean().sqrt() < 1.05


def test_starts_as_a_depthwise_convolution_five_positions_from_the_border() -> None:
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


def test_cached_equals_uncached() -> None:
    layer, x = small().eval(), images()
    recorded = layer(x)
    with torch.no_grad():
        first, second = layer(x), layer(x)
        assert layer.kernel() is layer.kernel()
    assert torch.equal(first, recorded)
    assert torch.equal(second, recorded)
    with torch.inference_mode():
        assert torch.equal(layer(x), recorded)


def test_no_cache_while_training_or_recording() -> None:
    layer = small()
    with torch.no_grad():
        assert layer.kernel() is not layer.kernel()
    layer.eval()
    assert layer.kernel() is not layer.kernel()
    assert layer.kernel().requires_grad
    with torch.inference_mode():
        made_there = small().eval()
        assert made_there.kernel() is not made_there.kernel()


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


@pytest.mark.parametrize("change", CHANGES)
def test_the_cache_dies_on(change: str) -> None:
    layer = small().eval()
    torch.manual_seed(2)
    torch.nn.init.normal_(layer.generator[0][1].weight)  # type: ignore[index]
    with torch.no_grad():
        before = layer.kernel()
        CHANGES[change](layer)
        after = layer.kernel()
    assert not torch.equal(after, before)
    assert torch.equal(after, fresh_kernel(layer))


def test_the_cache_follows_a_dtype_move() -> None:
    layer = small().eval()
    with torch.no_grad():
        layer(images())
        assert torch.nn.Sequential(layer).double()(images().double()).dtype == torch.float64


def test_training_drops_the_cache_and_evaluation_keeps_it() -> None:
    layer = small().eval()
    with torch.no_grad():
        kept = layer.kernel()
        assert layer.eval().kernel() is kept
        layer.train()
        layer.affinity_maps.data.mul_(3)
        layer.affinity_maps.data[0] = 0
        assert not torch.equal(layer.eval().kernel(), kept)


def test_the_cache_is_never_stored() -> None:
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


def test_autocast_generates_in_the_dtype_of_the_parameters() -> None:
    layer, x = small(), images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.kernel(), fresh_kernel(layer))
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)


def test_every_parameter_learns() -> None:
    layer = small()
    layer(images()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_another_size_is_refused() -> None:
    layer = TVConv2d(2, (16, 16), generator_channels=4)
    with pytest.raises(
        ValueError, match=r"built for 16x16 feature maps, got 50x50: pass size=\(50, 50\), or resample="
    ):
        layer(torch.zeros(1, 2, 50, 50))
    with pytest.raises(ValueError, match="got 16x20"):
        layer(torch.zeros(1, 2, 16, 20))
    with pytest.raises(ValueError, match="got 8x8"):
        TVConv2d(2, (16, 16), stride=2, generator_channels=4)(torch.zeros(1, 2, 16, 16))


def test_resampling_interpolates_the_kernel() -> None:
    layer, x = small(resample="bilinear"), images(12, 9)
    kernel = F.interpolate(layer.kernel(), (12, 9), mode="bilinear", align_corners=False)
    torch.testing.assert_close(layer(x), translation_variant_conv2d(x, kernel))
    torch.testing.assert_close(layer(images()), small()(images()))


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4: pass 5"):
        TVConv2d(2, (4, 4), kernel_size=4)
    with pytest.raises(ValueError, match="unknown resample 'cubic': pass 'bilinear' or None"):
        TVConv2d(2, (4, 4), resample="cubic")  # type: ignore[arg-type]


def test_prints_what_it_is() -> None:
    assert "TVConv2d(\n  3, size=(6, 5), kernel_size=3, stride=1, resample='bilinear'" in repr(
        small(resample="bilinear")
    )
