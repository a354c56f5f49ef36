"""TVConv's two extensions: a spatial transformer on its affinity maps, and a dynamic bias of each pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fundus_seg.models import bake
from fundus_seg.ops import DynamicBias2d, MovedTVConv2d, TVConv2d, translation_variant_conv2d
from fundus_seg.ops.moved import moved
from fundus_seg.profiling import Macs, count_macs

SIZE = (6, 5)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def made(kind: Callable[..., TVConv2d], **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(3, SIZE, generator_channels=4, generator_layers=1, resample="bilinear", **options)


def biased(operator: nn.Module, **options: Any) -> DynamicBias2d:
    torch.manual_seed(0)
    return DynamicBias2d(operator, 3, **options)


def varied(layer: Any) -> Any:
    """The layer with affinity maps that tell positions apart, and images that move them apart."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in (layer.affinity_maps, layer.movement.weight, layer.movement.bias):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return layer


class TestMoving:
    def test_nothing_moves_at_the_start_to_the_bit(self) -> None:
        maps = images(4, 7, 10)
        assert torch.equal(moved(maps, torch.zeros(2, 2, 3)), maps.expand(2, -1, -1, -1))

    def test_is_the_grid_sampling_of_torch(self) -> None:
        """With the nearest value outside, in float64, for affine maps of every kind, far moves among them."""
        maps, change = images(4, 7, 10).double(), images(5, 2, 3).double()
        whole = change + torch.eye(2, 3, dtype=torch.float64)
        grid = F.affine_grid(whole, [5, 4, 7, 10], align_corners=False)
        expected = F.grid_sample(maps.expand(5, -1, -1, -1), grid, padding_mode="border", align_corners=False)
        torch.testing.assert_close(moved(maps, change), expected)

    def test_by_hand(self) -> None:
        """One pixel to the right: half of the map's width of 4, times a half."""
        maps = torch.arange(8.0).view(1, 2, 4)
        change = torch.tensor([[[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]])
        assert moved(maps, change).tolist() == [[[[1, 2, 3, 3], [5, 6, 7, 7]]]]

    def test_gradients_are_those_of_differences(self) -> None:
        change = 0.3 * images(2, 2, 3).double()
        assert torch.autograd.gradcheck(moved, (images(2, 4, 5).double().requires_grad_(), change.requires_grad_()))

    def test_at_the_start_it_is_pulled_to_the_side_where_it_would_gain(self) -> None:
        change = torch.zeros(1, 2, 3, requires_grad=True)
        moved(torch.arange(4.0).expand(1, 2, 4), change).sum().backward()
        assert change.grad is not None
        assert change.grad[0, 0, 2].item() == 2 * 3 * 2  # three places of each row have a neighbour, two pixels a unit
        assert change.grad[0, 1].abs().max().item() == 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_it_keeps_the_dtype(self, dtype: torch.dtype) -> None:
        assert moved(images(2, 4, 5).to(dtype), images(1, 2, 3).to(dtype)).dtype == dtype


class TestMovedTVConv:
    def test_it_starts_as_tvconv_and_draws_no_further_number(self) -> None:
        plain, ours, x = made(TVConv2d), made(MovedTVConv2d), images(2, 3, *SIZE)
        following = torch.rand(3)
        made(TVConv2d)
        assert torch.equal(torch.rand(3), following)
        weights = ours.state_dict()
        assert weights.keys() - plain.state_dict().keys() == {"movement.weight", "movement.bias"}
        assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(("stride", "shape"), [(1, (6, 5)), (2, (12, 10)), (1, (9, 4)), (2, (7, 11))])
    def test_each_image_has_the_kernels_of_its_own_maps(self, stride: int, shape: tuple[int, int]) -> None:
        layer, x = varied(made(MovedTVConv2d, stride=stride)), images(2, 3, *shape)
        change = layer.movement(x.mean(dim=(2, 3))).view(2, 2, 3)
        for image, own, out in zip(x, moved(layer.affinity_maps, change), layer(x), strict=True):
            alone = made(TVConv2d, stride=stride)
            alone.load_state_dict(layer.state_dict(), strict=False)
            with torch.no_grad():
                alone.affinity_maps.copy_(own)
            torch.testing.assert_close(out, alone(image[None])[0], rtol=1e-4, atol=1e-4)

    def test_gradients_reach_everything(self) -> None:
        layer, x = varied(made(MovedTVConv2d)), images(2, 3, *SIZE).requires_grad_()
        layer(x).square().sum().backward()
        assert all(each.grad is not None and each.grad.abs().max() > 0 for each in (*layer.parameters(), x))

    def test_channels_last_and_autocast(self) -> None:
        layer, x = varied(made(MovedTVConv2d)), images(2, 3, *SIZE)
        last = layer(x.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last, layer(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16

    def test_baking_leaves_it_as_it_is(self) -> None:
        network = nn.Sequential(varied(made(MovedTVConv2d)), nn.BatchNorm2d(3), made(TVConv2d)).eval()
        baked, x = bake(network), images(2, 3, *SIZE)
        assert [type(each).__name__ for each in baked] == ["MovedTVConv2d", "BatchNorm2d", "BakedTVConv2d"]
        torch.testing.assert_close(baked(x), network(x))

    def test_its_macs_are_those_of_each_photograph(self) -> None:
        """The generator runs for each; the affine map moves the places, and a product of matrices reads the rows."""
        layer = MovedTVConv2d(3, (8, 8), affinity_channels=2, generator_channels=2, generator_layers=1).eval()
        places, generator = 64, 9 * (2 * 2 + 2 * 2 + 2 * 27)
        movement, rows = 3 * 6 + 2 * 3 * places, places * 8 * 2 * 8
        assert count_macs(layer, 8) == Macs(image=places * (9 * 3 + generator) + movement + rows, generation=0)

    def test_other_sizes_are_refused_or_resampled(self) -> None:
        layer = MovedTVConv2d(3, SIZE, generator_channels=4)
        with pytest.raises(ValueError, match="MovedTVConv2d was built for 6x5 feature maps, got 4x4"):
            layer(images(1, 3, 4, 4))


class TestDynamicBias:
    def test_it_starts_as_the_operator_to_the_bit_and_draws_no_number(self) -> None:
        plain, x = made(TVConv2d), images(2, 3, *SIZE)
        before = torch.get_rng_state()
        ours = DynamicBias2d(plain, 3)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(ours(x), plain(x))

    def test_is_a_bias_of_each_image_channel_and_pixel(self) -> None:
        layer, x = biased(nn.Identity(), stride=2), images(2, 3, 5, 4)
        layer.operator = nn.AvgPool2d(1, stride=2)
        last: Any = layer.bias[2]
        nn.init.normal_(last.weight)
        nn.init.normal_(last.bias)
        first: Any = layer.bias[0]
        hidden = torch.einsum("hc,bcij->bhij", first.weight[:, :, 0, 0], x).relu()
        bias = torch.einsum("ch,bhij->bcij", last.weight[:, :, 0, 0], hidden) + last.bias[:, None, None]
        torch.testing.assert_close(layer(x), (x + bias)[..., ::2, ::2])

    def test_gradients_reach_everything_once_it_has_moved(self) -> None:
        layer = biased(made(TVConv2d))
        nn.init.normal_(layer.bias[2].weight)  # type: ignore[arg-type]
        layer(images(2, 3, *SIZE)).square().sum().backward()
        assert all(each.grad is not None for each in layer.parameters())

    def test_the_operator_beside_it_is_baked(self) -> None:
        network = nn.Sequential(biased(made(TVConv2d)), nn.BatchNorm2d(3)).eval()
        baked, x = bake(network), images(2, 3, *SIZE)
        assert [type(each).__name__ for each in (baked[0].operator, baked[1])] == ["BakedTVConv2d", "BatchNorm2d"]
        torch.testing.assert_close(baked(x), network(x))

    def test_its_macs(self) -> None:
        layer = biased(nn.Conv2d(3, 3, 3, padding=1, groups=3)).eval()
        assert count_macs(layer, 8) == Macs(image=64 * (9 * 3 + 3 + 3), generation=0)


def test_the_function_takes_an_image_of_many_kernels() -> None:
    """What both rest on: images and channels together stand for channels."""
    x, weight = images(2, 3, 4, 5), images(2, 3, 9, 4, 5)
    together = translation_variant_conv2d(x.view(1, 6, 4, 5), weight.flatten(0, 1)).view(2, 3, 4, 5)
    alone = [translation_variant_conv2d(x[b : b + 1], weight[b]) for b in range(2)]
    torch.testing.assert_close(together, torch.cat(alone))
